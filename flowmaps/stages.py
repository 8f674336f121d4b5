"""The stages of a run: when one ends, what takes over what, and which checkpoint generates with how many steps.

A stage begins inside of the first step after the last one's end, as a function of the state alone. So a run goes on
from any checkpoint, that of a stage's end among them, as if it had never stopped.
"""

from collections.abc import Mapping
from functools import partial

import jax.numpy as jnp
from jax import lax

from flowmaps.optimizers import Optimizer
from flowmaps.state import TrainState, owned
from flowmaps.types import Method, stage_ends


def checkpoint_of(method: Method, steps: int, newest: int) -> int | None:
    """The checkpoint whose student generates with so many steps: the newest, or where that many are learned in a stage
    the one at its end; None where that stage has not begun."""
    for stage, end in zip(method.stages, stage_ends(method.stages), strict=True):
        if stage.generates == steps:
            return min(end, newest) if newest > end - stage.steps else None
    return newest


def learned(method: Method, step: int, step_counts: tuple[int, ...]) -> tuple[int, ...]:
    """Of these numbers of sampling steps those that the student learns which has taken `step` steps."""
    return tuple(count for count in step_counts if checkpoint_of(method, count, step) == step)


def begin(method: Method, optimizers: Mapping[str, Optimizer], state: TrainState) -> TrainState:
    """The state with which a step begins: where a stage has just ended, with weights taken over and optimizers that
    know no gradient yet."""
    ends = dict(zip(stage_ends(method.stages)[:-1], method.stages, strict=False))
    for promote in {tuple(stage.promote.items()) for stage in ends.values()}:
        now = [end for end, stage in ends.items() if tuple(stage.promote.items()) == promote]
        taken_over = partial(promoted, dict(promote), method, optimizers)
        state = lax.cond(jnp.isin(state.step, jnp.asarray(now)), taken_over, lambda state: state, state)
    return state


def promoted(
    promote: Mapping[str, str], method: Method, optimizers: Mapping[str, Optimizer], state: TrainState
) -> TrainState:
    """The state after the last step of a stage as the one before the first step of the next."""
    params = {**state.params, **{role: state.params[source] for role, source in promote.items()}}
    fresh = {
        player: optimizer.restart(
            {role: params[role] for role in owned(method, player)}, state.step // method.periods.get(player, 1)
        )
        for player, optimizer in optimizers.items()
    }
    return state.replace(params=params, opt_state=fresh)
