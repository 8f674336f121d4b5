"""The likelihood of held-out data under a trained velocity.

nll      by its ODE, with the exact trace. On planes the negative log-density in nats a point, whose floor is the
         law's entropy; on digits bits a pixel of data that are uniformly dequantised, 17 levels, 8 to the unit.
bound    the variational bound of ancestral sampling, in bits a pixel, for both variances; of networks that know
         that pixels are whole, for one trained on dequantised data pays for what lies within the levels.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from flowmaps import rows, solvers
from flowmaps.errors import UsageError
from flowmaps.metrics import ModelMetric
from flowmaps.solvers import likelihood, variational_bound

LEVELS_PER_UNIT = {"digits": 8}
"""Of the data sets that are whole numbers, by kind."""
TOLERANCE = 1e-5
NUM_SAMPLES = 297
"""All of the held-out digits."""
CHAIN = 1_000
"""Steps of the chain that `bound` measures, DDPM's, on a path without steps of its own."""


def nll(velocity, interpolant, dataset, seed: int, num_samples: int = NUM_SAMPLES) -> tuple[dict[str, float], int]:
    """The mean over held-out data, and the evaluations that the hardest of them took."""
    x, label = held_out(dataset, seed, num_samples)
    x = dequantised(x, dataset, seed)
    cond = {"label": jnp.asarray(label)} if dataset.num_classes else {}
    keys = rows.keys(jax.random.key(seed), 0, len(x))

    end = solvers.last_time(interpolant)

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


def held_out(dataset, seed: int, num_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Test data and their labels."""
    source = dataset.test or dataset.train
    batch = source.batch(np.arange(min(len(source), num_samples)), seed)
    return batch["x1"], batch["label"]


def dequantised(x: np.ndarray, dataset, seed: int) -> np.ndarray:
    """Whole numbers as points anywhere within their level; other data as they are."""
    if dataset.kind not in LEVELS_PER_UNIT:
        return x
    within = np.random.default_rng(seed).random(x.shape, np.float32) - np.float32(0.5)
    return x + within / LEVELS_PER_UNIT[dataset.kind]


def entropy(dataset, seed: int, num_samples: int = NUM_SAMPLES) -> dict[str, float]:
    """Of a law with a known density, on the same points; nothing else has a floor."""
    if dataset.log_density is None:
        return {"nll": float("nan")}
    return {"nll": float(-np.mean(dataset.log_density(held_out(dataset, seed, num_samples)[0])))}


def discrete_bound(
    velocity, interpolant, dataset, seed: int, num_samples: int = NUM_SAMPLES
) -> tuple[dict[str, float], int]:
    """The mean over held-out data of the bound with each variance."""
    (x, label), levels = held_out(dataset, seed, num_samples), LEVELS_PER_UNIT[dataset.kind]
    cond = {"label": jnp.asarray(label)} if dataset.num_classes else {}
    keys = rows.keys(jax.random.key(seed), 0, len(x))
    steps = interpolant.num_steps or CHAIN
    grid = np.linspace(interpolant.t_min, interpolant.t_max, steps + 1)

    @partial(jax.jit, static_argnames="variance")
    def bits(x, keys, cond, variance):
        terms = variational_bound.bound(
            velocity, interpolant, x, grid, keys, cond, levels_per_unit=levels, variance=variance
        )
        return sum(terms).mean() / (x[0].size * jnp.log(2.0))

    x = jnp.asarray(x)
    return {f"bound_{v}": float(bits(x, keys, cond, v)) for v in ("large", "small")}, steps


def unknown(dataset, seed: int, num_samples: int = NUM_SAMPLES) -> dict[str, float]:
    """Nobody knows the entropy of digits."""
    return {"bound_large": float("nan"), "bound_small": float("nan")}


METRICS = {
    "nll": ModelMetric({"nll": "lower"}, NUM_SAMPLES, ("plane", "digits"), nll, entropy, "gaussian source"),
    "bound": ModelMetric(
        {"bound_large": "lower", "bound_small": "lower"}, NUM_SAMPLES, ("digits",), discrete_bound, unknown, "score"
    ),
}
