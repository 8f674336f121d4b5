"""Continuous-time consistency models (Song et al. 2023, arXiv:2303.01469, section 5; simplified and stabilised as sCM:
Lu, Song 2024, arXiv:2410.11081). With f(x, s) = X_{s,1}(x) along the path's own velocity, or a teacher's in its place,

    g = alpha (d/ds + dx_s/ds . grad) f(x_s, s),    L = E exp(-w(s)) |F - sg F - g / (|g| + c)|^2 / d + w(s),

the Eulerian identity at t = 1. F is the velocity at s of the ends that make f: on the path `trigonometric`, with
source_std = data_std and the prediction `edm`, TrigFlow's F in units of its angle, pi/2 (1 - s). The jvp's direction
carries alpha (1 - s), so that it vanishes at both ends (the paper's rearrangement). While g is warmed up, by r from 0,

    g = r g + (1 - r) alpha^2 (dx_s/ds - F),

flow matching for F at first. The diagonal is not learned. Cost: 4.1F a row, and 1F of the teacher.
"""

from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Float

from flowmaps import rows, samplers, times
from flowmaps.identities import directional_derivative
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.rows import expand
from flowmaps.types import Array, Batch, Cond, Keys, Loss, Method, Roles, Velocity
from flowmaps.weightings import log_variance, normalized, squared

Row = Float[Array, " b"]
Points = Float[Array, "b *d"]


class Tangent(NamedTuple):
    """What one jvp of the network gives."""

    implied: Points
    """F, with its gradient."""
    flow: Points
    """alpha^2 (dx_s/ds - F), stopped."""
    map: Points
    """g, stopped."""


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    velocity: Literal["path", "teacher"] = "path",
    law: tuple = ("log_normal", -1.0, 1.4),
    warmup_steps: int = 10_000,
    constant: float = 0.157,
    learned_weight: bool = True,
    label_dropout: float = 0.0,
) -> Method:
    """velocity: along the path's own (sCT), or the teacher's (sCD). law: of s, see times.on_path. warmup_steps: until
    r = 1; 0: none. constant: c, 0.1 per unit of TrigFlow's angle; 0: no normalization. learned_weight: w of the role
    log_variance; otherwise |F - sg F - g|^2.

    Raises UsageError for a warm-up longer than training, or a teacher that is not there (with the first batch).
    """
    warm = _terms.warmup(warmup_steps, total_steps)
    draw = times.on_path(interpolant, *law)

    def tangent(student: Velocity, x: Points, velocity: Points, s: Row, cond: Cond, dropout: Keys) -> Tangent:
        end = jnp.full_like(s, interpolant.t_max)
        alpha = interpolant.alpha.value(s)
        scale = alpha * (end - s)

        def at_start(x: Points, s: Row) -> Points:
            return student(x, s, end, cond, dropout=dropout)

        v, dv = directional_derivative(at_start, (x, s), (expand(scale, x) * velocity, scale))
        implied = interpolant.velocity(*interpolant.ends_from_average(x, v, s, end), s)
        alpha = expand(alpha, x)
        flow, map_ = alpha**2 * (velocity - implied), alpha * (velocity - v) + dv
        return Tangent(implied, stop_gradient(flow), stop_gradient(map_))

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        s = draw(rows.fold(keys, 1))
        point, dropout = _terms.path_point(interpolant, batch, s), rows.fold(keys, 2)
        along = _terms.velocity_of(velocity, roles, point, s, cond)
        implied, flow, map_ = tangent(roles.student, point.x, along, s, cond, dropout)
        share = warm(step)
        blended = normalized(share * map_ + (1 - share) * flow, constant)
        squares = squared(implied - stop_gradient(implied) - blended)
        metrics = {"map": jnp.mean(squared(map_))}
        if not learned_weight:
            return Loss(squares, metrics)
        size = point.x[0].size
        weight = roles.extras["log_variance"](s, jnp.full_like(s, interpolant.t_max))
        return Loss(log_variance(squares / size, weight), metrics)

    owners = {"log_variance": "student"} if learned_weight else {}
    renoising = samplers.make("renoising", interpolant=interpolant)
    asked = "velocity" if velocity == "teacher" else ""
    return Method({"student": student_loss}, renoising, owners, teacher=asked, diagonal=False, one_end=True)
