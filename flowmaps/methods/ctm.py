"""Consistency trajectory models (Kim et al. 2024, arXiv:2310.02279). With the average X' of the student and times
s < u <= t of a grid, u k intervals after s,

    soft consistency   d( X'_t1(X_st(x_s)), sg X'_t1(X_ut(x_u)) )
    denoising          EDM's loss of v_rr, r of its law for one half of the rows and high noise for the other

the semigroup identity compared at the data's end, where both are brought by X' through whose input the gradient flows.
Its first leg is a teacher's, x_u by k steps from x_s, k of probability proportional to k, and denoising is weighed so
that in the network's last layer the two gradients are equally long: the paper's method is leg "heun" with 17 intervals,
at most 17 steps and `adaptive`. Or x_u is on the path of x_s, and there is no teacher. The paper's G(x, t, s) =
(s/t) x + (1 - s/t) g(x, t, s) is the prediction `edm` on `variance_exploding`, whose ends are held from s to t. (Its
third term, of a discriminator, is config.adversary's.)
Cost: 10.1F a row, and of the teacher 1F (heun: 2F) for each of (2 most_steps + 1) / 3 steps, in the mean; `adaptive`
costs next to nothing, since the way back to the last layer is short.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Float, Int

from flowmaps import rows, samplers, times, weightings
from flowmaps.errors import UsageError
from flowmaps.identities import flow_map
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles, Velocity

Row = Float[Array, " b"]
Points = Float[Array, "b *d"]

EARLY = 0.7
"""Of the path's clock: where the denoising term has its high noise levels, without which the map from noise is bad."""


def steps_between(step: Int[Array, ""], most: int) -> Int[Array, ""]:
    """k of 1, ..., most with probability k / (1 + ... + most).

    All rows take as many steps, so k is drawn of the training step and not of their keys: by its own key, from the
    inverse of the cumulative k (k + 1) / (most (most + 1)).
    """
    share = jax.random.uniform(jax.random.fold_in(jax.random.key(0), step))
    k = jnp.arange(1, most)
    return 1 + jnp.sum(share >= k * (k + 1) / (most * (most + 1)), dtype=jnp.int32)


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    leg: Literal["path", "ddim", "heun"] = "path",
    intervals: int = 80,
    most_steps: int = 1,
    distance: _terms.Distance = "squared",
    huber: float = 0.00054,
    law: tuple = ("log_normal", -1.2, 1.2),
    data_std: float = 0.5,
    weights: tuple[float, float] = (1.0, 1.0),
    adaptive: bool = False,
    target_decay: float = 0.999,
    label_dropout: float = 0.0,
) -> Method:
    """leg: x_u on the path, or by steps of the teacher from x_s (solvers/steps.py). intervals: of the grid, uniform in
    the path's clock: on `variance_exploding` Karras' levels. most_steps: the largest k. distance, huber: see
    _terms.far; the paper's is "perceptual". law: of r, see times.on_path, for one half of the rows; r is uniform on the
    first 0.7 of the path's clock for the other. data_std: of EDM's weight. weights: of the two terms. adaptive:
    multiplies the second one by the ratio of weightings.balanced, of the batch or of each part of it that
    train.accumulate makes. target_decay: of the average.

    Raises UsageError for fewer than 2 intervals, one of which would have to be taken without a target, more steps than
    intervals, or a teacher or last layer that is not there (with the first batch).
    """
    if intervals < 2:
        raise UsageError(f"method.intervals={intervals}: a grid with an earlier and a later step has at least 2")
    if not 1 <= most_steps <= intervals:
        raise UsageError(f"method.most_steps={most_steps} must be at least 1 and at most method.intervals={intervals}")
    start, end = interpolant.t_min, interpolant.t_max
    draw = times.on_path(interpolant, *law)
    early = times.within(times.uniform(), start, start + EARLY * (end - start))

    def time(index: Row) -> Row:
        return times.at_index(interpolant, index, intervals)

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        dropout, between = rows.fold(keys, 2), steps_between(step, most_steps)
        first, last = (rows.uniform(rows.fold(rows.fold(keys, 1), stream)) for stream in (0, 1))
        first = jnp.floor((intervals + 1 - between) * first)
        last = first + between + jnp.floor((intervals + 1 - between - first) * last)
        s, u, t = time(first), time(first + between), time(last)
        ends = jnp.full_like(t, end)

        def moved(velocity: Velocity, x: Points, start: Row, stop: Row) -> Points:
            return flow_map(velocity, x, start, stop, cond, dropout)

        def solved(number: Array, x: Points) -> Points:
            """One interval on, the teacher's `number`-th."""
            here = time(first + number), time(first + number + 1)
            return _terms.teacher_step(leg, roles, interpolant, x, *here, cond)

        x_s = interpolant.point(batch["x0"], batch["x1"], s)
        if leg == "path":
            x_u = interpolant.point(batch["x0"], batch["x1"], u)
        else:
            x_u = jax.lax.fori_loop(0, between, solved, x_s)
        aim = stop_gradient(moved(roles.student, x_u, u, t))
        aim_at_end = stop_gradient(moved(roles.target, aim, t, ends))

        def far(reached: Points) -> Row:
            """From the aim, as both are at the end."""
            return _terms.far(roles, moved(roles.target, reached, t, ends), aim_at_end, distance, huber)

        r = jnp.where(rows.uniform(rows.fold(keys, 4)) < 0.5, draw(rows.fold(keys, 3)), early(rows.fold(keys, 3)))
        x = interpolant.point(batch["x0"], batch["x1"], r)

        def terms(roles: Roles) -> tuple[tuple[Row, Row], dict[str, Array]]:
            """Soft consistency and EDM's loss; the squared distance at t, and the squared error of the data."""
            reached = moved(roles.student, x_s, s, t)
            velocity = roles.student(x, r, r, cond, dropout=dropout)
            data, noise = _terms.denoising_errors(interpolant, batch, x, velocity, r)
            raw = {"map": jnp.mean(weightings.squared(reached - aim)), "data": jnp.mean(data)}
            return (weightings.sloped(far, reached), noise + data / data_std**2), raw

        if not adaptive:
            (map_, flow), metrics = terms(roles)
            return Loss(weights[0] * map_ + weights[1] * flow, metrics)
        map_, flow, ratio, metrics = weightings.balanced(terms, roles)
        return Loss(weights[0] * map_ + weights[1] * ratio * flow, {**metrics, "ratio": ratio})

    asked = "" if leg == "path" else "velocity"
    gamma = samplers.make("gamma", interpolant=interpolant, gamma=0.0)
    owners = _terms.features_owner(distance == "perceptual")
    return Method({"student": student_loss}, gamma, owners, target_decay=lambda step: target_decay, teacher=asked)
