"""What shows only in a training of tens of thousands of steps."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from flowmaps import experiment

CHUNK = 1_000
"""Steps that run as one program."""
OPTIMIZED = {"xla_backend_optimization_level": 3}
"""Unlike the programs of other tests."""


def losses(config, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """The diagonal and the off-diagonal loss at each of the first `steps` steps of a run on the plane."""
    exp = experiment.build(config)
    take, size = experiment.train_step(exp), config.train.batch_size

    @partial(jax.jit, donate_argnums=0, compiler_options=OPTIMIZED)
    def train(state, x1):
        def step(state, x1):
            state, measured = take(state, {"x1": x1})
            return state, jnp.stack([measured["flow"], measured["map"]])

        return jax.lax.scan(step, state, x1)

    state, logged = experiment.init(exp), []
    for start in range(0, steps, CHUNK):
        rows = np.arange(start * size, (start + CHUNK) * size)
        state, measured = train(state, exp.dataset.train.batch(rows)["x1"].reshape(CHUNK, size, 2))
        logged.append(measured)
    flow, map_ = np.concatenate(jax.device_get(logged)).T
    return flow, map_


@pytest.mark.long
def test_esd_with_the_stops_for_images_diverges_at_the_rate_of_the_others():
    """What keeps configs/esd_checker.py from lsd's learning rate: the derivative of the map, which the gradient sees
    through d/ds X alone, feeds on itself, while the diagonal hardly notices. LSD and PSD are calm at this rate."""
    config = base.checker("esd", through="slope")
    config.train.steps, config.mesh.data = 60_000, 1
    flow, map_ = losses(config, 46_000)
    early, late = slice(10_000, 12_000), slice(44_000, 46_000)
    assert map_[early].mean() < 0.05
    assert map_[late].mean() > 100 * map_[early].mean()
    assert flow[late].mean() < 1.1 * flow[early].mean()
