"""The losses as they are mostly written: their gradients are ours, and they cost more."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import naive
from flowmaps import networks

SMALL = {"depth": 1, "width": 16, "heads": 2}
LIMITS = {
    # Naive at least, ours at most, in steps of flow matching with one head
    "MeanFlow, guided by kappa": (2.0, 1.51),
    "improved MeanFlow, guided": (2.9, 2.5),
    "shortcut, 1/4": (1.66, 1.17),
}


def size(name, **small):
    return {**small, "head_depth": 1} if naive.PEERS[name].network == "in_context_dit" else small


LONG = {"improved MeanFlow, guided": [pytest.mark.long]}


@pytest.mark.float64
@pytest.mark.parametrize("name", [pytest.param(name, marks=LONG.get(name, [])) for name in naive.PEERS])
def test_their_gradients_are_ours(name):
    module = naive.network(name, **size(name, **SMALL))
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: networks.init(module, jax.random.key(0)))
    params = jax.tree.map(lambda s: jnp.asarray(draw.normal(0, 0.1, s.shape)), shapes)
    x0, x1 = (jnp.asarray(draw.normal(size=(32, 4, 4, 4))) for _ in range(2))
    label = jnp.arange(32, dtype=jnp.int32) % 10
    theirs, ours = jax.jit(lambda *given: [step(*given) for step in naive.both(name, module)])(params, x0, x1, label)
    largest = max(jnp.abs(leaf).max() for leaf in jax.tree.leaves(ours))
    assert largest > 1e-3
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9 * largest), theirs, ours)


@pytest.mark.parametrize("name", naive.PEERS)
def test_what_they_cost(name):
    theirs, ours = naive.work(name, scan=True)
    assert theirs > LIMITS[name][0]
    assert ours < LIMITS[name][1]
