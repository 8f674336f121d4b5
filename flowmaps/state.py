"""The state of a run: all that a checkpoint must hold to go on exactly."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import struct

from flowmaps import ema
from flowmaps.optimizers import Optimizer
from flowmaps.types import Method, Params

Tree = Any
"""Arrays by name, or in their places shapes, shardings and whatever else jax maps them to."""


class TrainState(struct.PyTreeNode):
    """Arrays that a step turns into those of the next; no two of them share a buffer."""

    step: Tree
    """Steps taken, int32 []."""
    params: Tree
    """Role -> parameters."""
    opt_state: Tree
    """Player -> state of its optimizer."""
    target: Tree | None
    """Average of the student that the method learns from, where it has one."""
    ema: Tree
    """Decay ("0.999") -> average of the student, for sampling."""
    skipped: Tree
    """Steps in which a player's update was not finite and was left out, int32 []."""
    skipped_in_a_row: Tree
    """Such steps since all players last took an update, int32 []."""
    most_skipped_in_a_row: Tree
    """The largest value that `skipped_in_a_row` has had, int32 []."""


def owned(method: Method, player: str) -> tuple[str, ...]:
    """The roles whose parameters a player trains: the student's by the player "student", the rest by `owners`."""
    owners = {"student": "student", **method.owners}
    return tuple(role for role, owner in owners.items() if owner == player)


def create(
    params: Mapping[str, Params],
    *,
    method: Method,
    optimizers: Mapping[str, Optimizer],
    decays: Iterable[float] = (),
) -> TrainState:
    """The state before the first step. Averages begin as copies of the student."""
    params = dict(params) | {role: ema.copy(params[source]) for role, source in method.init.items()}
    student = params["student"]
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state={p: optimizers[p].init({r: params[r] for r in owned(method, p)}) for p in method.losses},
        target=None if method.target_decay is None else ema.copy(student),
        ema=ema.start(student, decays),
        skipped=jnp.zeros((), jnp.int32),
        skipped_in_a_row=jnp.zeros((), jnp.int32),
        most_skipped_in_a_row=jnp.zeros((), jnp.int32),
    )
