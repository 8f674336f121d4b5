"""The state of a run: all that a checkpoint must hold to go on exactly."""

from collections.abc import Collection, Mapping
from typing import Any

import jax.numpy as jnp
from flax import struct

from flowmaps import ema
from flowmaps.optimizers import Optimizer
from flowmaps.types import Array, Method, Params

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
    extras_ema: Tree
    """Extra role -> decay -> average of it, where the config keeps any: for readers of checkpoints, no loss sees it."""
    skipped: Tree
    """Player -> its updates that were not finite and were left out, int32 []."""
    skipped_in_a_row: Tree
    """Player -> such updates since it last took one, int32 []."""
    most_skipped_in_a_row: Tree
    """Player -> the largest value that its `skipped_in_a_row` has had, int32 []."""


def owned(method: Method, player: str) -> tuple[str, ...]:
    """The roles whose parameters a player trains: the student's by the player "student", the rest by `owners`."""
    owners = {"student": "student", **method.owners}
    return tuple(role for role, owner in owners.items() if owner == player)


def create(
    params: Mapping[str, Params],
    *,
    method: Method,
    optimizers: Mapping[str, Optimizer],
    decays: Mapping[str, Collection[float]] = {},
) -> TrainState:
    """The state before the first step; `decays`: role -> those of its averages."""
    params = dict(params) | {role: ema.copy(params[source]) for role, source in method.init.items()}
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state={p: optimizers[p].init({r: params[r] for r in owned(method, p)}) for p in method.losses},
        **averages(params, method=method, decays=decays),
        skipped=_zeros(method),
        skipped_in_a_row=_zeros(method),
        most_skipped_in_a_row=_zeros(method),
    )


def averages(
    params: Mapping[str, Params], *, method: Method, decays: Mapping[str, Collection[float]]
) -> dict[str, Tree | None]:
    """The fields of a state that follow its parameters, where they begin: as copies of these."""
    started = {role: ema.start(params[role], kept) for role, kept in decays.items() if kept}
    return {
        "target": None if method.target_decay is None else ema.copy(params["student"]),
        "ema": started.pop("student", {}),
        "extras_ema": started,
    }


def _zeros(method: Method) -> dict[str, Array]:
    return {player: jnp.zeros((), jnp.int32) for player in method.losses}
