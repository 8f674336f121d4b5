"""Inductive Moment Matching (Zhou, Ermon, Song 2025, arXiv:2503.07565; its clock is turned). Groups of M rows share the
times s < u <= t; with y = X_st(x_s) and y' = sg X_ut(x_u), x_s and x_u on one path,

    L = E w(s) 1/M^2 sum_jk k(y_j, y_k) + k(y'_j, y'_k) - 2 k(y_j, y'_k),    k(a, b) = exp(-|a - b| / (d c(s, t))),

the semigroup identity between laws in the place of points: the kernel's MMD between two samples of the law at t. u is
where the noise level beta / alpha has fallen by its range / 2^k from s. M = 1 is consistency training. A group of
several labels compares the mixture of their laws; what binds a row to its own label is the pair (y_j, y'_j). Cost: 4F a
row.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Float

from flowmaps import rows, samplers
from flowmaps.errors import UsageError
from flowmaps.identities import flow_map
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles
from flowmaps.weightings import squared

Row = Float[Array, " g"]
Groups = Float[Array, "g m *d"]

NEAREST = 1e-8
"""Distances count as no less (the paper's epsilon); the kernel has no gradient below."""


def laplace(one: Groups, other: Groups, width: Row) -> Float[Array, "g m m"]:
    """exp(-|a - b| / (d width)) of all pairs in a group, rows of d numbers."""
    size = one[0, 0].size
    differences = (one[:, :, None] - other[:, None]).reshape(*one.shape[:2], one.shape[1], size)
    distance = jnp.sqrt(jnp.maximum((differences**2).sum(-1), NEAREST**2))
    return jnp.exp(-distance / (size * width[:, None, None]))


def mmd(one: Groups, other: Groups, width: Row) -> Row:
    """The squared MMD of two samples of each group, its V-statistic: never negative, and 0 for equal samples."""
    pairs = laplace(one, one, width) + laplace(other, other, width) - 2 * laplace(one, other, width)
    return pairs.mean((1, 2))


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    group: int = 4,
    between: tuple[float, float] = (0.006, 1.0),
    halvings: int = 12,
    width: Literal["euler", "edm"] = "euler",
    bias: float = 4.0,
    power: float = 1.0,
    label_dropout: float = 0.0,
) -> Method:
    """group: M. between: the range of times, s uniform on it and t between s and its end. halvings: k. width: c, by
    what the prediction multiplies the output with, source_std (t - s) of `velocity` on the linear path ("euler") or
    source_std (alpha_t beta_s - beta_t alpha_s) / sqrt(alpha_s^2 + beta_s^2) of `edm`. bias, power: b and a of

        w = 1/2 sigmoid(b - log SNR) (d/ds log SNR) alpha^a / (alpha^2 + beta^2).

    Raises UsageError for times outside of the path, a first time without data, or (with the first batch) a group that
    does not divide it.
    """
    low, high = between
    if group < 1:
        raise UsageError(f"method.group={group}: a group has a row at least")
    if not interpolant.t_min <= low < high <= interpolant.t_max:
        raise UsageError(
            f"method.between={between} must be two rising times of [{interpolant.t_min}, {interpolant.t_max}]"
        )
    with jax.ensure_compile_time_eval():
        highest, lowest = (float(jnp.exp(interpolant.log_level(jnp.asarray(t)))) for t in between)
    if not highest < float("inf"):
        raise UsageError(f"method.between={between}: at its first time the path has no data, and infinite noise level")
    decrement = (highest - lowest) / 2**halvings

    def drawn(keys: Keys) -> tuple[Row, Row, Row]:
        """s, u and t of each group."""
        s = low + (high - low) * rows.uniform(rows.fold(keys, 0))
        t = s + (high - s) * rows.uniform(rows.fold(keys, 1))
        fallen = interpolant.beta.value(s) / interpolant.alpha.value(s) - decrement
        return s, jnp.minimum(interpolant.time_of_level(fallen), t), t

    def kernel_width(s: Row, t: Row) -> Row:
        span = t - s
        if width == "edm":
            (a, b), (at, bt) = ((interpolant.alpha.value(r), interpolant.beta.value(r)) for r in (s, t))
            span = (at * b - bt * a) / jnp.sqrt(a**2 + b**2)
        return interpolant.source_std * jnp.maximum(span, 1e-6)

    def weight(s: Row) -> Row:
        """w, in a form that is regular at both ends."""
        a, b = interpolant.alpha.value(s), interpolant.beta.value(s)
        rise = interpolant.alpha.slope(s) * b - interpolant.beta.slope(s) * a
        return a ** (power - 1) * b * rise / ((b**2 + jnp.exp(-bias) * a**2) * (a**2 + b**2))

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        count = keys.shape[0]
        if count % group:
            raise UsageError(
                f"a batch of {count} rows is not made of groups of {group}: use a multiple of it (on every device), or "
                "another method.group"
            )
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        of_groups = drawn(rows.fold(keys, 1)[::group])
        s, u, t = (jnp.repeat(time, group) for time in of_groups)
        dropout = rows.fold(keys, 2)
        x_s, x_u = (interpolant.point(batch["x0"], batch["x1"], time) for time in (s, u))
        y = flow_map(roles.student, x_s, s, t, cond, dropout)
        aim = stop_gradient(flow_map(roles.target, x_u, u, t, cond, dropout))
        grouped = (particles.reshape(-1, group, *y.shape[1:]) for particles in (y, aim))
        apart = mmd(*grouped, kernel_width(of_groups[0], of_groups[2]))
        return Loss(weight(of_groups[0]) * apart, {"mmd": jnp.mean(apart), "map": jnp.mean(squared(y - aim))})

    return Method({"student": student_loss}, samplers.composed)
