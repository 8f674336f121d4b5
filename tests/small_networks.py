"""Every network, small, with random parameters, for tests."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from flowmaps import networks

BATCH = 4
UNET = {"shape": (8, 8, 1), "num_classes": 3, "multipliers": (1, 2), "depth": 1, "attention": (4,), "dropout": 0.5}
DIT = {"shape": (8, 8, 1), "num_classes": 3, "width": 16, "depth": 2, "heads": 2, "dropout": 0.5}
MODERN = {"mlp": "swiglu", "norm": "rms", "qk_norm": True, "positions": "rotary", "remat": "dots", "scan": True}
SMALL = {
    "mlp": {"shape": (2,), "num_classes": 3, "width": 16, "depth": 3, "dropout": 0.5},
    "residual": {"shape": (2,), "num_classes": 3, "width": 16, "depth": 3, "residual": True, "dropout": 0.5},
    "unet": {**UNET, "width": 8},
    "edm2_unet": {**UNET, "width": 8, "depth": 0, "head_width": 8},
    "dit": DIT,
    "modern": {**DIT, **MODERN},
    "in_context_dit": {**DIT, "head_depth": 1, "remat": "full"},
}
FILES = {"residual": "mlp", "modern": "dit"}
"""Of those that are not named by it."""


def build(name, **changed):
    return networks.make(FILES.get(name, name), **{**SMALL[name], **changed})


def perturbed(module, seed=0):
    """Random parameters of the module, in the default precision, none of them zero; a gain's are of order one."""
    shapes = jax.eval_shape(partial(networks.init, module), jax.random.key(0))
    draw = np.random.default_rng(seed)
    scales = jax.tree.map(lambda p: min(0.3, p.shape[0] ** -0.5) if p.shape else 1.0, shapes)
    return jax.tree.map(lambda p, scale: jnp.asarray(draw.normal(0, scale, p.shape)), shapes, scales)


def bound(module, params):
    """The network as one compiled program."""
    return jax.jit(networks.bind(module, params))


def inputs(module, batch=BATCH):
    keys = jax.random.split(jax.random.key(7), 3)
    x = jax.random.normal(keys[0], (batch, *module.shape))
    s, t = jax.random.uniform(keys[1], (batch,)), jax.random.uniform(keys[2], (batch,))
    return x, s, t, {"label": jnp.arange(batch, dtype=jnp.int32) % 3}


def count(module):
    shapes = jax.eval_shape(lambda: networks.init(module, jax.random.key(0)))
    return sum(p.size for p in jax.tree.leaves(shapes))
