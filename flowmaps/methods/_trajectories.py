"""A teacher's trajectories from noise to data: as they were stored, or integrated as they are needed."""

from collections.abc import Callable
from typing import Literal

import jax.numpy as jnp
from jax import lax
from jax.lax import stop_gradient
from jaxtyping import Float, Int

from flowmaps import rows, times
from flowmaps.errors import UsageError
from flowmaps.identities import flow_map
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.solvers import steps
from flowmaps.types import Array, Batch, Cond, Keys, Loss, LossFn, Roles
from flowmaps.weightings import squared

States = Float[Array, "k b *d"]
"""At the times 0, 1/K, ..., 1 of the path's clock; the first is interpolant.start(x0)."""
Trajectories = Callable[[Roles, Batch, Cond], States]


def make(
    interpolant: Interpolant,
    pairs: Literal["stored", "online"],
    points: int,
    solver: Literal["ddim", "heun"],
    count: int,
) -> Trajectories:
    """The states of trajectories at `points` + 1 times: of stored pairs, or by `count` steps of the teacher's ODE.

    Raises UsageError where `points` does not divide the steps, or what is stored.
    """
    if points < 1 or (pairs == "online" and count % points):
        raise UsageError(f"method.points={points} must divide method.solver_steps={count}")

    def stored(roles: Roles, batch: Batch, cond: Cond) -> States:
        path = batch["path"] if "path" in batch else batch["x1"][:, None]
        kept = path.shape[1]
        if kept % points:
            raise UsageError(
                f"method.points={points} must divide the states that stored pairs keep, and these keep {kept}: make "
                "them anew with --config.sample.points"
            )
        states = jnp.moveaxis(path, 1, 0)[kept // points - 1 :: kept // points]
        return jnp.concatenate([interpolant.start(batch["x0"])[None], states])

    def integrated(roles: Roles, batch: Batch, cond: Cond) -> States:
        teacher = _terms.teacher(roles)

        def advance(x: Array, number: Array) -> tuple[Array, Array]:
            s, u = (times.at_index(interpolant, jnp.full(x.shape[0], number + side), count) for side in (0, 1))
            x = steps.STEPS[solver](teacher, interpolant, x, s, u, cond)
            return x, x

        start = interpolant.start(batch["x0"])
        _, states = lax.scan(advance, start, jnp.arange(count, dtype=start.dtype))
        return stop_gradient(jnp.concatenate([start[None], states[count // points - 1 :: count // points]]))

    return stored if pairs == "stored" else integrated


def to_the_end(
    trajectories: Trajectories, interpolant: Interpolant, points: int, distance: _terms.Distance, huber: float
) -> LossFn:
    """d(X_{s,1}(x_s), x_1) at a state x_s of each row's way but the last, uniformly; see _terms.far. No label is
    dropped: x_1 has it."""

    def loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = rows.condition(batch)
        states = trajectories(roles, batch, cond)
        index = drawn(rows.fold(keys, 0), 0, points)
        s, end = (times.at_index(interpolant, i, points) for i in (index, jnp.full_like(index, points)))
        moved = flow_map(roles.student, at(states, index), s, end, cond, rows.fold(keys, 1))
        far = _terms.far(roles, moved, states[-1], distance, huber)
        return Loss(far, {"map": jnp.mean(squared(moved - states[-1]))})

    return loss


def drawn(keys: Keys, low: Int[Array, " b"] | int, high: int) -> Int[Array, " b"]:
    """Uniform on low, ..., high - 1, a row."""
    return (low + jnp.floor((high - low) * rows.uniform(keys))).astype(jnp.int32)


def at(states: States, index: Int[Array, " b"]) -> Float[Array, "b *d"]:
    """Each row's state of its own index."""
    return states[index, jnp.arange(states.shape[1])]
