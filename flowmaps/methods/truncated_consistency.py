"""Truncated consistency models (TCM, Lee et al. 2024, arXiv:2410.14895): the second stage of a consistency model, which
learns from noise levels above sigma' alone. With h the student f there and the first stage g, a frozen teacher, below,

    L = E w d( f(x_s), sg h(x_u) ) over levels above sigma'  +  w_b E w d( f(x_s), sg g(x_u) ) at sigma' itself,
 x_s and x_u on one path as in ECT's last stage. The second term, the boundary, ties the student to the first stage;
without it any constant would do. Sampling puts noise back to levels above sigma' alone. Cost: 5F a row, the teacher's
pass included.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Float

from flowmaps import rows, samplers, times, weightings
from flowmaps.errors import UsageError
from flowmaps.identities import flow_map
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.methods.consistency import inverse, time_of_ratio
from flowmaps.rows import expand
from flowmaps.types import Array, Batch, Cond, Keys, Loss, Method, Roles

Row = Float[Array, " b"]

BELOW = 1e-4
"""Of the boundary's noise level, above it in relation: its rows start at it, and their targets lie below."""


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    boundary: float = 1.0,
    boundary_share: float = 0.25,
    boundary_weight: float = 0.1,
    ratio: tuple[float, float, float] = (2.0, 8.0, 1.0),
    stage: int = 8,
    distance: _terms.Distance = "pseudo_huber",
    huber: float = 0.00054,
    label_dropout: float = 0.0,
) -> Method:
    """boundary: sigma'. boundary_share, boundary_weight: of the rows that start at it, and w_b. ratio, stage: q, k, b
    and the stage of ECT's schedule. The other rows start uniformly, in the path's clock, between its beginning and
    sigma' (for the paper's heavy-tailed law of levels). w is 1 / (sigma(s) - sigma(u)). distance, huber: see
    _terms.far.

    Raises UsageError for a boundary that is not inside of the path's levels, a stage in which its rows' targets are not
    below it, or a teacher that is not there (with the first batch).
    """
    with jax.ensure_compile_time_eval():
        last = interpolant.time_of_level(jnp.asarray(boundary * (1 + BELOW) / interpolant.source_std))
    if not interpolant.t_min + 1e-6 < float(last) < interpolant.t_max - 1e-6:
        raise UsageError(f"method.boundary={boundary} is not among the path's noise levels: choose one inside of them")
    with jax.ensure_compile_time_eval():
        target = interpolant.sigma(time_of_ratio(interpolant, jnp.asarray([last]), ratio, stage))[0]
    if not target < boundary:
        raise UsageError(
            f"method.stage={stage}: targets of the boundary's rows would not lie below it, and nothing would tie the "
            "student to its teacher: choose an earlier stage"
        )
    shares = (boundary_share, 1 - boundary_share)
    law = times.within(times.uniform(), interpolant.t_min, float(last))

    def term(roles: Roles, batch: Batch, s: Row, cond: Cond, keys: Keys) -> tuple[Row, Row]:
        """The weighted distance and the squared one."""
        u = time_of_ratio(interpolant, s, ratio, stage)
        x_s, x_u = (interpolant.point(batch["x0"], batch["x1"], time) for time in (s, u))
        end, dropout = jnp.full_like(s, interpolant.t_max), rows.fold(keys, 2)
        first, second = (
            flow_map(velocity, x_u, u, end, cond, dropout) for velocity in (_terms.teacher(roles), roles.target)
        )
        aim = stop_gradient(jnp.where(expand(interpolant.sigma(u), x_u) < boundary, first, second))
        moved = flow_map(roles.student, x_s, s, end, cond, dropout)
        weight = inverse(interpolant.sigma(s) - interpolant.sigma(u))
        return weight * _terms.far(roles, moved, aim, distance, huber), weightings.squared(moved - aim)

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        (batch_b, cond_b, keys_b), (batch_c, cond_c, keys_c) = rows.split((batch, cond, keys), shares)
        tied, raw_tied = term(roles, batch_b, jnp.full(keys_b.shape, float(last)), cond_b, keys_b)
        map_, raw = term(roles, batch_c, law(rows.fold(keys_c, 1)), cond_c, keys_c)
        terms, weights = {"boundary": tied, "map": map_}, (boundary_weight, 1.0)
        return _terms.loss(terms, shares, weights, {"boundary": raw_tied, "map": raw})

    above = partial(samplers.renoising, interpolant, float(last))
    owners = _terms.features_owner(distance == "perceptual")
    return Method({"student": student_loss}, above, owners, teacher="map to the end", diagonal=False, one_end=True)
