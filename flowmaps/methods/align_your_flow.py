"""Align Your Flow (Sabour, Fidler, Kreis 2025, arXiv:2506.14603). For s <= t, with v = v_st(x_s) and a velocity b,

    L = E |v - sg v - g / (|g| + c)|^2
    eulerian (EMD)     g = b_s(x_s) - v + r (t - s) dv/ds,   the derivative along b: MeanFlow's gradient
    lagrangian (LMD)   g = b_t(X_st(x_s)) - v - r (t - s) dv/dt,   LSD's but for its gradient through dv/dt

b is a teacher's, guided by a scale that is drawn a row and read by the network, or in EMD the path's own dx_s/ds. r
rises from 0, where EMD is flow matching at every
t, to 0.99 and no further, which keeps the map near to the straight one. The loss is in units of velocity: the paper's,
of states, has a weight beside it (of 1 / (t - s) the two are one). Cost: 4.1F a row, and 1F of the teacher.
"""

from typing import Literal

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Float

from flowmaps import rows, samplers, times
from flowmaps.errors import UsageError
from flowmaps.identities import eulerian, lagrangian
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles
from flowmaps.weightings import normalized, squared

Row = Float[Array, " b"]
Points = Float[Array, "b *d"]


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    objective: Literal["eulerian", "lagrangian"] = "eulerian",
    velocity: Literal["path", "teacher"] = "path",
    law: tuple = ("uniform",),
    warmup_steps: int = 10_000,
    most: float = 0.99,
    constant: float = 0.1,
    guidance: tuple[float, float] = (1.0, 1.0),
    label_dropout: float = 0.0,
) -> Method:
    """objective: EMD or LMD. velocity: the path's own, or the teacher's. law: of the two times that are sorted into
    s <= t, see times.on_path. warmup_steps: until r = most; 0: none. constant: c of the normalization; 0: none.
    guidance: the least and the largest scale of the teacher's, uniform between them, the paper's (1, 3); (1, 1): none
    but config.teacher.guidance, and no input of the network.

    Raises UsageError for a warm-up longer than training, an r outside of [0, 1], LMD or guidance along the path, scales
    that do not rise from above 0, or a teacher that is not there (with the first batch).
    """
    if objective == "lagrangian" and velocity == "path":
        raise UsageError(
            "method.objective='lagrangian' reads the velocity at transported points, where the path has none: set "
            "method.velocity to 'teacher'"
        )
    learned = _terms.guidance_input(guidance, intervals=False)
    if learned is not None and velocity == "path":
        raise UsageError(
            f"method.guidance={guidance} is of a teacher, and the path has none: set method.velocity to 'teacher'"
        )
    warm = _terms.warmup(warmup_steps, total_steps)
    if not 0 <= most <= 1:
        raise UsageError(f"method.most={most} must lie in [0, 1]: 1 is the Eulerian identity itself")
    pair = times.sorted_pair(times.on_path(interpolant, *law))

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        cond = _terms.ask_guidance(cond, learned, rows.fold(keys, 3))
        s, t = pair(rows.fold(keys, 1))
        point, dropout = _terms.path_point(interpolant, batch, s), rows.fold(keys, 2)
        part = most * warm(step)

        def field(x: Points, t: Row) -> Points:
            return _terms.teacher(roles)(x, t, t, cond)

        if objective == "lagrangian":
            options = {"through": "velocity", "part": part, "dropout": dropout}
            map_ = -lagrangian(roles.student, point.x, s, t, field, cond, **options)
        else:
            along = _terms.velocity_of(velocity, roles, point, s, cond)
            map_ = eulerian(roles.student, point.x, s, t, along, cond, part=part, dropout=dropout)
        tangent = normalized(stop_gradient(map_), constant)
        # map_ has the gradient of -v
        return Loss(squared(stop_gradient(map_) - map_ - tangent), {"map": jnp.mean(squared(map_))})

    asked = "velocity" if velocity == "teacher" else ""
    return Method({"student": student_loss}, samplers.composed, guidance=learned, teacher=asked)
