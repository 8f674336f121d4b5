"""A training step as a run has it, of a method and a network that are given."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import Mesh

from flowmaps import couplings, networks, optimizers, sharding, state, train_step
from flowmaps.state import TrainState
from flowmaps.types import Method


class Training(NamedTuple):
    """What a run begins with, and what it repeats."""

    create: Callable[[], TrainState]
    """The state before the first step, born on its devices."""
    step: Callable
    """The compiled step (state, batch) -> (state, metrics), which consumes the state."""
    start: TrainState
    """The state's shapes."""
    batch: dict[str, jax.ShapeDtypeStruct]


def make(method: Method, module: nn.Module, mesh: Mesh, batch_size: int) -> Training:
    """By AdamW, on examples without labels, of a method that trains its student alone."""
    made = {player: optimizers.make("adamw", learning_rate=1e-4, updates=1_000) for player in method.losses}
    step = train_step.make(
        method,
        binds={"student": partial(networks.bind, module)},
        coupling=couplings.make("independent"),
        optimizers=made,
        mesh=mesh,
        seed=0,
    )

    def create() -> TrainState:
        params = {"student": networks.init(module, jax.random.key(0))}
        return state.create(params, method=method, optimizers=made)

    start = jax.eval_shape(create)
    where = sharding.state(mesh, start)
    jitted = jax.jit(
        step,
        in_shardings=(where, sharding.rows(mesh)),
        out_shardings=(where, sharding.replicated(mesh)),
        donate_argnums=0,
    )
    batch = {"x1": jax.ShapeDtypeStruct((batch_size, *module.shape), jnp.float32)}
    return Training(jax.jit(create, out_shardings=where), jitted, start, batch)
