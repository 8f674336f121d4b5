"""Consistency trajectory models (Kim et al. 2024, arXiv:2310.02279) without a teacher. With the average X' of the
student and times s < u <= t of a grid, u the next one after s, x_s and x_u on one path,

    soft consistency   d( X'_t1(X_st(x_s)), sg X'_t1(X_ut(x_u)) )
    denoising          EDM's loss of v_rr, r of its law for one half of the rows and high noise for the other

the semigroup identity with the path's own chord first, compared at the data's end, where both are brought by X' through
whose input the gradient flows (with a teacher the paper takes several steps to u, and weighs denoising by the ratio of
two gradients). The paper's G(x, t, s) = (s/t) x + (1 - s/t) g(x, t, s) is the prediction `edm` on
`variance_exploding`, whose ends are held from s to t. Cost: 10F a row.
"""

from typing import Literal

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Float

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


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    intervals: int = 80,
    distance: Literal["squared", "l1", "pseudo_huber"] = "squared",
    huber: float = 0.00054,
    law: tuple = ("log_normal", -1.2, 1.2),
    data_std: float = 0.5,
    weights: tuple[float, float] = (1.0, 1.0),
    target_decay: float = 0.999,
    label_dropout: float = 0.0,
) -> Method:
    """intervals: of the grid, uniform in the path's clock: on `variance_exploding` Karras' levels. distance, huber: see
    weightings.distance. law: of r, see times.on_path, for one half of the rows; r is uniform on the first 0.7 of the
    path's clock for the other. data_std: of EDM's weight. weights: of the two terms. target_decay: of the average.

    Raises UsageError for fewer than 2 intervals, one of which would have to be taken without a target.
    """
    if intervals < 2:
        raise UsageError(f"method.intervals={intervals}: a grid with an earlier and a later step has at least 2")
    start, end = interpolant.t_min, interpolant.t_max
    draw = times.on_path(interpolant, *law)
    early = times.within(times.uniform(), start, start + EARLY * (end - start))

    def triple(keys: Keys) -> tuple[Row, Row, Row]:
        """s, the next time u, and t from u on."""
        first = jnp.floor(intervals * rows.uniform(rows.fold(keys, 0)))
        last = first + 1 + jnp.floor((intervals - first) * rows.uniform(rows.fold(keys, 1)))
        s, u, t = (start + (end - start) * index / intervals for index in (first, first + 1, last))
        return s, u, t

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(_terms.condition(batch), rows.fold(keys, 0), label_dropout)
        s, u, t = triple(rows.fold(keys, 1))
        ends, dropout = jnp.full_like(t, end), rows.fold(keys, 2)

        def moved(velocity: Velocity, x: Points, start: Row, stop: Row) -> Points:
            return flow_map(velocity, x, start, stop, cond, dropout)

        x_s, x_u = (interpolant.point(batch["x0"], batch["x1"], time) for time in (s, u))
        reached = moved(roles.student, x_s, s, t)
        aim = stop_gradient(moved(roles.student, x_u, u, t))
        apart = moved(roles.target, reached, t, ends) - stop_gradient(moved(roles.target, aim, t, ends))

        r = jnp.where(rows.uniform(rows.fold(keys, 4)) < 0.5, draw(rows.fold(keys, 3)), early(rows.fold(keys, 3)))
        x = interpolant.point(batch["x0"], batch["x1"], r)
        data, noise = _terms.denoising_errors(interpolant, batch, x, roles.student(x, r, r, cond, dropout=dropout), r)
        denoising = noise + data / data_std**2

        metrics = {"map": jnp.mean(weightings.squared(reached - aim)), "data": jnp.mean(data)}
        return Loss(weights[0] * weightings.distance(apart, distance, huber) + weights[1] * denoising, metrics)

    gamma = samplers.make("gamma", interpolant=interpolant, gamma=0.0)
    return Method({"student": student_loss}, gamma, target_decay=lambda step: target_decay)
