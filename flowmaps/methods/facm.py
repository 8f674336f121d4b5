"""Flow-anchored consistency models (Peng et al. 2025, arXiv:2507.03738). At a point x_s, with v = v_{s,1}(x_s) and
v_{s,s} of one network, and the path's own velocity dx_s/ds or a teacher's in its place,

    anchor       |v_ss - dx_s/ds|^2 / d + 1 - cos(v_ss, dx_s/ds)
    consistency  cos(pi s / 2) e / sqrt(e + c),  e = |v - sg[v - k clip(v - dx_s/ds - (1 - s) dv/ds)]|^2 / d,

k = 1 - s^p: the Eulerian identity at t = 1, its derivative along the path, clipped to 1 and relaxed towards the data,
beside flow matching. The network tells the two apart by its second time (1 or s), or where it has one time alone by the
prediction `two_clocks`, which asks for the anchor at 2 - s. Cost: 7.1F a row,
and 1F of the teacher.
"""

from typing import Literal

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Float

from flowmaps import rows, samplers, times
from flowmaps.errors import UsageError
from flowmaps.identities import eulerian, tangent
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.rows import expand, flat_mean
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles
from flowmaps.weightings import adaptive

Row = Float[Array, " b"]
Points = Float[Array, "b *d"]


def misalignment(v: Points, velocity: Points) -> Row:
    """1 - cos of the angle between the channels of two fields, in the mean over their places."""
    product = (v * velocity).sum(-1)
    lengths = jnp.sqrt((v**2).sum(-1) * (velocity**2).sum(-1) + 1e-12)
    return 1 - (product / lengths).reshape(v.shape[0], -1).mean(-1)


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    velocity: Literal["path", "teacher"] = "path",
    law: tuple = ("arctan_log_normal", -0.8, 1.6),
    cosine: float = 1.0,
    clip: float = 1.0,
    relaxation: float = 0.5,
    constant: float = 1e-3,
    label_dropout: float = 0.0,
) -> Method:
    """velocity: the path's own, or the teacher's. law: of s, see times.on_path. cosine: weight of the anchor's second
    part, which like the consistency's norm is biased where the velocity's law given x is not symmetric. clip: of each
    number of the tangent. relaxation: p; 0 would leave no target. constant: c.

    Raises UsageError for times on another interval than [0, 1], a relaxation or clip that is not above 0, or a teacher
    that is not there (with the first batch).
    """
    _terms.check_unit_interval("facm", interpolant)
    if relaxation <= 0 or clip <= 0:
        raise UsageError(
            f"method.relaxation={relaxation} and method.clip={clip} must be above 0: else the target is the student"
        )
    draw = times.on_path(interpolant, *law)

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        s = draw(rows.fold(keys, 1))
        point, dropout = _terms.path_point(interpolant, batch, s), rows.fold(keys, 2)
        along = stop_gradient(_terms.velocity_of(velocity, roles, point, s, cond))

        flow = tangent(roles.student, point.x, s, along, cond, dropout)
        anchor = flat_mean(flow**2) + cosine * misalignment(flow + along, along)

        map_ = -eulerian(roles.student, point.x, s, jnp.ones_like(s), along, cond, dropout=dropout)
        step_ = expand(1 - s**relaxation, map_) * jnp.clip(map_, -clip, clip)
        relaxed = map_ - stop_gradient(map_ - step_)  # the value of the step, the gradient of v
        consistency = jnp.cos(jnp.pi * s / 2) * adaptive(flat_mean(relaxed**2), 0.5, constant)

        raw = {"flow": jnp.mean(flat_mean(flow**2)), "map": jnp.mean(flat_mean(map_**2))}
        return Loss(anchor + consistency, raw)

    asked = "velocity" if velocity == "teacher" else ""
    renoising = samplers.make("renoising", interpolant=interpolant)
    return Method({"student": student_loss}, renoising, teacher=asked, one_end=True)
