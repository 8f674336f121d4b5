"""Terminal Velocity Matching (Zhou et al. 2025, arXiv:2511.19797; its clock is turned). With v' the student's average,

    terminal   |d/dt X_st(x_s) - sg v'_tt(sg X_st(x_s))|^2                 the Lagrangian identity, as in LSD
    flow       |v_rr(x_r) - sg[w dx_r/dr + (1 - w) v'_rr(x_r | no label)]|^2,

both divided by the square of the guidance scale w, which is drawn a row and read by the network. Under the prediction
`scaled` the output is multiplied by w (the paper's scale parameter). Cost: 10.3F a row; guidance adds 1F.
"""

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Float

from flowmaps import rows, samplers, times
from flowmaps.guidance import with_guidance, without_labels
from flowmaps.identities import lagrangian
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.rows import expand
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles
from flowmaps.weightings import squared

Row = Float[Array, " b"]
Points = Float[Array, "b *d"]


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    gap: tuple[float, float] = (-0.8, 1.0),
    end: tuple[float, float] = (0.4, 1.0),
    law: tuple = ("logit_normal", 0.4, 1.0),
    guidance: tuple[float, float] = (1.0, 1.0),
    target_decay: float = 0.99,
    label_dropout: float = 0.0,
) -> Method:
    """gap, end: mean and standard deviation of the logits of t - s and of t (times.gap). law: of r, see times.on_path.
    guidance: the least and the largest w, uniform between them; (1, 1): none, and no input of the network.
    label_dropout: rows without label have w = 1.

    Raises UsageError for times on another interval than [0, 1], scales that do not rise from above 0, or guidance
    without dropout.
    """
    _terms.check_unit_interval("tvm", interpolant)
    learned = _terms.trained_guidance(guidance, label_dropout, intervals=False)
    pair = times.gap(*gap, *end)
    draw = times.on_path(interpolant, *law)

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        (s, t), r, dropout = pair(rows.fold(keys, 1)), draw(rows.fold(keys, 2)), rows.fold(keys, 3)
        scale = jnp.ones_like(r)
        if learned is not None:
            unlabelled = with_guidance(without_labels(cond), scale)
            scale = jnp.where(_terms.unlabelled(cond), scale, _terms.drawn_scale(learned, rows.fold(keys, 4)))
            cond = with_guidance(cond, scale)

        x, velocity = _terms.path_point(interpolant, batch, r)
        if learned is not None:
            plain = roles.target(x, r, r, unlabelled, dropout=dropout)
            velocity = plain + expand(scale, x) * (velocity - plain)
        flow = squared(roles.student(x, r, r, cond, dropout=dropout) - stop_gradient(velocity))

        def field(x: Points, t: Row) -> Points:
            return roles.target(x, t, t, cond, dropout=dropout)

        x = interpolant.point(batch["x0"], batch["x1"], s)
        terminal = squared(lagrangian(roles.student, x, s, t, field, cond, dropout=dropout))

        metrics = {"flow": jnp.mean(flow), "map": jnp.mean(terminal)}
        return Loss((flow + terminal) / scale**2, metrics)

    return Method(
        {"student": student_loss},
        samplers.composed,
        target_decay=lambda step: target_decay,
        guidance=learned,
    )
