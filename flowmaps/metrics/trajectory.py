"""How straight the ways of the probability-flow ODE are, Z_t from source to data: what few steps have to follow.

    straightness   E int |Z_1 - Z_0 - dZ_t/dt|^2 dt       (rectified flow, arXiv:2209.03003, eq. 6; times on [0, 1])
    curvature      E int |d^2 Z_t / dt^2| dt              the whole change of the velocity along the way

by Euler's method with STEPS steps, times stretched to [0, 1]; both are 0 where each way is walked in a straight line at
one speed. On planes and images alike, labels in turn; distances are those of x, not of features.
"""

import jax
import jax.numpy as jnp
import numpy as np

from flowmaps import data, rows, solvers
from flowmaps.metrics import ModelMetric

STEPS = 128
NUM_SAMPLES = 512


def ways(velocity, interpolant, dataset, seed: int, num_samples: int = NUM_SAMPLES) -> tuple[dict[str, float], int]:
    """Both of `num_samples` ways from the source."""
    keys = rows.keys(jax.random.key(seed), 0, num_samples)
    label = jnp.arange(num_samples, dtype=jnp.int32) % max(dataset.num_classes, 1)
    cond = {"label": label} if dataset.num_classes else {}
    grid = np.linspace(interpolant.t_min, interpolant.t_max, STEPS + 1)

    @jax.jit
    def walk(x0, cond):
        return solvers.load("euler")(velocity, interpolant, interpolant.start(x0), grid, keys, cond)

    if dataset.source is None:
        x0 = interpolant.source_std * rows.normal(keys, dataset.shape)
    else:
        x0 = jnp.asarray(data.draw(dataset.source, np.arange(num_samples), seed))
    out = walk(x0, cond)
    path = np.asarray(out.path, np.float64).reshape(STEPS + 1, num_samples, -1)
    return {"straightness": straightness(path), "curvature": curvature(path)}, int(out.nfe)


def straightness(path: np.ndarray) -> float:
    """Of states [steps + 1, n, d] at equal steps of [0, 1]."""
    speed = np.diff(path, axis=0) * (len(path) - 1)
    return float(np.mean(np.sum((path[-1] - path[0] - speed) ** 2, axis=-1)))


def curvature(path: np.ndarray) -> float:
    """Of states [steps + 1, n, d] at equal steps of [0, 1]."""
    change = np.diff(path, n=2, axis=0) * (len(path) - 1)
    return float(np.mean(np.sum(np.linalg.norm(change, axis=-1), axis=0)))


def unknown(dataset, seed: int, num_samples: int = NUM_SAMPLES) -> dict[str, float]:
    """There is no floor: it depends on the path and the coupling."""
    return {"straightness": float("nan"), "curvature": float("nan")}


METRICS = {
    "straightness": ModelMetric(
        {"straightness": "lower", "curvature": "lower"},
        NUM_SAMPLES,
        ("plane", "digits", "image", "latent"),
        ways,
        unknown,
    )
}
