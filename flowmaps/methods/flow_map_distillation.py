"""Flow map matching (Boffi, Albergo, Vanden-Eijnden 2024, arXiv:2406.07507), for times s and t in either order:

    lagrangian (LMD)    |d/dt X_st(x_s) - b_t(X_st(x_s))|^2
    eulerian (EMD)      |d/ds X_st(x_s) + grad X_st(x_s) b_s(x_s)|^2
    progressive (PFMM)  |v_st(x_s) - sg[h v'_su(x_s) + (1 - h) v'_ut(X'_su(x_s))]|^2,    h = 1/2
    direct (FMM)        |d/dt X_st(X_ts(x_t)) - dx_t/dt|^2 + |X_st(X_ts(x_t)) - x_t|^2

with b the diagonal of a frozen teacher and X' its map; the direct one has none, and inverts itself. Nothing is stopped
but the teacher's parameters. Cost, a teacher as large included: 8.4F a row (LMD), 7.3F (EMD), 5F (PFMM), 9.3F (FMM).
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Float

from flowmaps import rows, samplers, times
from flowmaps.identities import directional_derivative, eulerian, flow_map, lagrangian, semigroup
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.types import Array, Batch, Cond, Keys, Loss, Method, Roles
from flowmaps.weightings import squared

Row = Float[Array, " b"]
Points = Float[Array, "b *d"]


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    objective: Literal["lagrangian", "eulerian", "progressive", "direct"] = "lagrangian",
    two_sided: bool = False,
    cyclic: float = 1.0,
    label_dropout: float = 0.0,
) -> Method:
    """objective: as above. two_sided: times in both orders, so that the map encodes too; otherwise s <= t, but the
    direct objective always has both. cyclic: weight of its second term.

    Raises UsageError for a teacher that is not there (with the first batch).
    """
    law = times.within(times.uniform(), interpolant.t_min, interpolant.t_max)
    ordered = times.sorted_pair(law)

    def pair(keys: Keys) -> times.Pair:
        return times.Pair(law(rows.fold(keys, 0)), law(rows.fold(keys, 1))) if two_sided else ordered(keys)

    def distilled(roles: Roles, batch: Batch, keys: Keys, cond: Cond, dropout: Keys) -> Points:
        """The residual of the objective's identity at x_s."""
        teacher = _terms.teacher(roles)
        s, t = pair(keys)
        x = interpolant.point(batch["x0"], batch["x1"], s)

        def field(x: Points, t: Row) -> Points:
            return teacher(x, t, t, cond)

        if objective == "progressive":
            return semigroup(roles.student, teacher, x, s, t, jnp.full_like(s, 0.5), cond, dropout=dropout)
        if objective == "eulerian":
            return eulerian(roles.student, x, s, t, field(x, s), cond, through="map", dropout=dropout)
        return lagrangian(roles.student, x, s, t, field, cond, through="all", dropout=dropout)

    def inverted(roles: Roles, batch: Batch, keys: Keys, cond: Cond, dropout: Keys) -> tuple[Points, Points]:
        """d/dt X_st(X_ts(x_t)) - dx_t/dt, and X_st(X_ts(x_t)) - x_t."""
        s, t = law(rows.fold(keys, 0)), law(rows.fold(keys, 1))
        x, velocity = _terms.path_point(interpolant, batch, t)
        back = flow_map(roles.student, x, t, s, cond, dropout)

        def forth(t: Row) -> Points:
            return flow_map(roles.student, back, s, t, cond, dropout)

        there, slope = directional_derivative(forth, (t,), (jnp.ones_like(t),))
        return slope - velocity, there - x

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        given = batch, rows.fold(keys, 1), cond, rows.fold(keys, 2)
        if objective != "direct":
            map_ = squared(distilled(roles, *given))
            return Loss(map_, {"map": jnp.mean(map_)})
        map_, cycle = (squared(residual) for residual in inverted(roles, *given))
        return Loss(map_ + cyclic * cycle, {"map": jnp.mean(map_), "cycle": jnp.mean(cycle)})

    asked = {"direct": "", "progressive": "map"}.get(objective, "velocity")
    return Method({"student": student_loss}, samplers.composed, teacher=asked)
