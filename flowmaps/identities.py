"""The four identities of the flow map X_{s,t}(x) = x + (t - s) v_{s,t}(x), as residuals; the only home of jvp.

    tangent     v_{t,t} = b_t
    Eulerian    d/ds X_{s,t}(x) + grad X_{s,t}(x) b_s(x) = 0
    Lagrangian  d/dt X_{s,t}(x) = b_t(X_{s,t}(x))
    semigroup   X_{s,t} = X_{u,t} o X_{s,u}

Each function gives the residual [B, ...] at a batch of points; it is zero for the exact map. `through` says what a
gradient flows through, since the methods differ in nothing else; all other values are stopped. See docs/identities.md.
"""

import math
from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Float

from flowmaps.rows import expand, flat_sum
from flowmaps.types import Array, Cond, Keys, Velocity

Points = Float[Array, "b *d"]
Times = Float[Array, " b"]
Tree = Any
"""What a function gives: an array, or several."""


def directional_derivative(function: Callable, point: tuple, direction: tuple) -> tuple[Tree, Tree]:
    """(f, df) at `point` along `direction`, by one forward-mode pass."""
    return jax.jvp(function, point, direction)


def divergence(field: Callable[[Points], Points], x: Points) -> Times:
    """The exact divergence of a field, row by row: a forward-mode pass for each number of a row."""

    def along(axis: Float[Array, "*d"]) -> Times:
        direction = jnp.broadcast_to(axis, x.shape)
        return flat_sum(direction * directional_derivative(field, (x,), (direction,))[1])

    size = math.prod(x.shape[1:])
    axes = jnp.eye(size, dtype=x.dtype).reshape(size, *x.shape[1:])
    return jax.vmap(along)(axes).sum(axis=0)


def flow_map(velocity: Velocity, x: Points, s: Times, t: Times, cond: Cond, dropout: Keys | None = None) -> Points:
    """X_{s,t}(x)."""
    return x + expand(t - s, x) * velocity(x, s, t, cond, dropout=dropout)


def tangent(
    student: Velocity, x: Points, t: Times, velocity: Points, cond: Cond, dropout: Keys | None = None
) -> Points:
    """v_{t,t}(x) - b, for the marginal velocity b_t(x) or the conditional one, whose mean given x it is."""
    return student(x, t, t, cond, dropout=dropout) - velocity


def lagrangian(
    student: Velocity,
    x: Points,
    s: Times,
    t: Times,
    field: Callable[[Points, Times], Points],
    cond: Cond,
    *,
    through: Literal["map", "velocity", "all"] = "map",
    part: float | Float[Array, ""] = 1.0,
    dropout: Keys | None = None,
) -> Points:
    """d/dt X_{s,t}(x) - b_t(X_{s,t}(x)) = v + (t - s) dv/dt - b_t(X), with b = `field`.

    through "map": v and dv/dt (LSD); "velocity": v alone (Align Your Flow's LMD); "all": b and its input as well.
    `field` must be a marginal velocity: it is read at transported points, where a conditional one is biased. `part` of
    the derivative is taken, as in `eulerian`.
    """

    def at_end(t: Times) -> Points:
        return student(x, s, t, cond, dropout=dropout)

    v, dv = directional_derivative(at_end, (t,), (jnp.ones_like(t),))
    span, dv = expand(t - s, x), part * dv
    if through == "all":
        return v + span * dv - field(x + span * v, t)
    if through == "velocity":
        dv = stop_gradient(dv)
    return v + span * dv - stop_gradient(field(stop_gradient(x + span * v), t))


def eulerian(
    student: Velocity,
    x: Points,
    s: Times,
    t: Times,
    velocity: Points,
    cond: Cond,
    *,
    through: Literal["velocity", "slope", "map", "all"] = "velocity",
    direction: Points | None = None,
    part: float | Float[Array, ""] = 1.0,
    dropout: Keys | None = None,
) -> Points:
    """d/ds X_{s,t}(x) + grad X_{s,t}(x) b = b - v + (t - s) (dv/ds + grad v b), with b = `velocity` = b_s(x).

    through "velocity": v alone (MeanFlow, and the only one that a conditional velocity leaves unbiased beside
    "slope"); "slope": d/ds X, that is v and dv/ds, with the advection grad X b stopped (ESD, "full" in its code);
    "map": everything but b (ESD, "convex" in its code); "all": b as well. `direction`, where given, stands for b in
    grad v b alone: a marginal velocity there and a conditional one before it (improved MeanFlow). `part` of the
    derivative is taken: from 0, which is flow matching, to 1 (Align Your Flow's warm-up).
    """

    def at_start(x: Points, s: Times) -> Points:
        return student(x, s, t, cond, dropout=dropout)

    span = part * expand(t - s, x)
    still, tick = jnp.zeros_like(x), jnp.ones_like(s)
    direction = velocity if direction is None else direction
    if through != "all":
        velocity, direction = stop_gradient((velocity, direction))
    if through == "slope":
        v, derivative = jax.linearize(at_start, x, s)
        slope = span * derivative(still, tick) - v
        return slope + stop_gradient(velocity + span * derivative(direction, jnp.zeros_like(s)))
    v, dv = directional_derivative(at_start, (x, s), (direction, tick))
    if through == "velocity":
        dv = stop_gradient(dv)
    return velocity + span * dv - v


def semigroup(
    student: Velocity,
    target: Velocity,
    x: Points,
    s: Times,
    t: Times,
    share: Times,
    cond: Cond,
    *,
    first: Points | None = None,
    through: Literal["velocity", "all"] = "velocity",
    dropout: Keys | None = None,
) -> Points:
    """v_{s,t}(x) - [h v_{s,u}(x) + (1 - h) v_{u,t}(X_{s,u}(x))], u = s + h (t - s), h = `share` in [0, 1].

    This is (X_{s,t} - X_{u,t} o X_{s,u}) / (t - s). Both legs are `target`'s; `first`, where given, stands for v_{s,u}:
    the chord of a path, whose error in place of the marginal velocity is O(h) (alpha-Flow). through "velocity":
    v_{s,t} alone. One dropout mask serves the step and its legs.
    """
    u = s + share * (t - s)
    h = expand(share, x)
    first = target(x, s, u, cond, dropout=dropout) if first is None else first
    second = target(x + expand(u - s, x) * first, u, t, cond, dropout=dropout)
    legs = h * first + (1 - h) * second
    return student(x, s, t, cond, dropout=dropout) - (legs if through == "all" else stop_gradient(legs))


def consistent_states(
    student: Velocity,
    target: Velocity,
    points: tuple[Points, Points],
    s: Times,
    u: Times,
    t: Times,
    cond: Cond,
    dropout: Keys | None = None,
) -> tuple[Points, Points]:
    """X_{s,t}(x_s) and sg X_{u,t}(x_u), for points (x_s, x_u) of one path: the semigroup in units of state, whose first
    leg is the path's own and not the flow's. Their difference is zero in the mean given x_s up to O(u - s). One dropout
    mask serves both."""
    earlier, later = points
    moved = flow_map(student, earlier, s, t, cond, dropout)
    return moved, stop_gradient(flow_map(target, later, u, t, cond, dropout))
