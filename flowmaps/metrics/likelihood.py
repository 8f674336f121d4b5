"""The likelihood of data under a trained velocity, by its ODE: held-out data, each with the exact trace.

On planes the negative log-density in nats a point, whose floor is the law's entropy. On digits bits a pixel of data
that are uniformly dequantised: 17 levels, 8 to the unit of [-1, 1].
"""

import jax
import jax.numpy as jnp
import numpy as np

from flowmaps import rows, solvers
from flowmaps.errors import UsageError
from flowmaps.metrics import ModelMetric
from flowmaps.solvers import likelihood

LEVELS_PER_UNIT = {"digits": 8}
"""Of the data sets that are whole numbers, by kind."""
TOLERANCE = 1e-5
NUM_SAMPLES = 297
"""All of the held-out digits."""


def nll(velocity, interpolant, dataset, seed: int, num_samples: int = NUM_SAMPLES) -> tuple[dict[str, float], int]:
    """The mean over held-out data, and the evaluations that the hardest of them took. Raises UsageError where x0 is not
    Gaussian, and the source's density not known."""
    if dataset.source is not None:
        raise UsageError("metric 'nll' needs a Gaussian source, and this run starts from data.source: leave it out")
    x, label = held_out(dataset, seed, num_samples)
    cond = {"label": jnp.asarray(label)} if dataset.num_classes else {}
    keys = rows.keys(jax.random.key(seed), 0, len(x))

    end = last_time(interpolant)

    @jax.jit
    def measured(x, keys, cond):
        return likelihood.log_likelihood(velocity, interpolant, x, keys, cond, rtol=TOLERANCE, atol=TOLERANCE, last=end)

    out = measured(jnp.asarray(x), keys, cond)
    if out.nfe == solvers.GAVE_UP:
        raise UsageError(f"metric 'nll' did not reach its tolerance of {TOLERANCE}: the velocity is too steep")
    value = -out.log_density
    if dataset.kind in LEVELS_PER_UNIT:
        levels = LEVELS_PER_UNIT[dataset.kind]
        value = likelihood.bits_per_dimension(out.log_density, x[0].size, levels_per_unit=levels)
    return {"nll": float(value.mean())}, int(out.nfe)


def last_time(interpolant) -> float:
    """t_max, or where the path's slope is infinite there a thousandth of its times before."""
    end = interpolant.t_max
    if np.isfinite(interpolant.beta.slope(jnp.asarray(end))):
        return end
    return end - (end - interpolant.t_min) / 1_000


def held_out(dataset, seed: int, num_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Test data and their labels; of whole numbers, anywhere within their level."""
    source = dataset.test or dataset.train
    batch = source.batch(np.arange(min(len(source), num_samples)), seed)
    x = batch["x1"]
    if dataset.kind in LEVELS_PER_UNIT:
        x = x + np.random.default_rng(seed).random(x.shape, np.float32) / LEVELS_PER_UNIT[dataset.kind]
    return x, batch["label"]


def entropy(dataset, seed: int, num_samples: int = NUM_SAMPLES) -> dict[str, float]:
    """Of a law with a known density, on the same points; nothing else has a floor."""
    if dataset.log_density is None:
        return {"nll": float("nan")}
    return {"nll": float(-np.mean(dataset.log_density(held_out(dataset, seed, num_samples)[0])))}


METRICS = {"nll": ModelMetric({"nll": "lower"}, NUM_SAMPLES, ("plane", "digits"), nll, entropy)}
