"""The frame of the self-distilled flow maps (Boffi, Albergo, Vanden-Eijnden 2025, arXiv:2505.18825): flow matching on
the diagonal, and off it the residual of one identity whose velocity is the student's own.

    L = w_b E |v_tt(x_t) - dx_t/dt|^2 + w_D E |residual_{s,t}(x_s)|^2,    (s, t) uniform on the triangle.
"""

from collections.abc import Callable

from jaxtyping import Float

from flowmaps import rows, samplers, times
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.types import Array, Batch, Cond, Keys, Loss, Method, Roles
from flowmaps.weightings import log_variance, squared

Row = Float[Array, " b"]
Points = Float[Array, "b *d"]
Residual = Callable[[Roles, Points, Row, Row, Cond, Keys], Points]
"""(roles, x_s, s, t, cond, keys) -> the residual of an identity."""


def self_distillation(
    residual: Residual,
    *,
    interpolant: Interpolant,
    diagonal_fraction: float,
    weights: tuple[float, float],
    learned_weight: bool,
    label_dropout: float,
) -> Method:
    """The method whose off-diagonal term is `residual`. weights: (w_b, w_D), of the means of the two terms."""
    shares = (diagonal_fraction, 1 - diagonal_fraction)
    law = times.within(times.uniform(), interpolant.t_min, interpolant.t_max)
    triangle = times.sorted_pair(law)

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        diagonal, off = rows.split((batch, cond, keys), shares)

        batch_d, cond_d, keys_d = diagonal
        time = law(rows.fold(keys_d, 1))
        flow = squared(_terms.flow_residual(roles.student, interpolant, batch_d, time, cond_d, rows.fold(keys_d, 2)))

        batch_o, cond_o, keys_o = off
        s, t = triangle(rows.fold(keys_o, 1))
        x = interpolant.point(batch_o["x0"], batch_o["x1"], s)
        map_ = squared(residual(roles, x, s, t, cond_o, rows.fold(keys_o, 2)))

        raw = {"flow": flow, "map": map_}
        if not learned_weight:
            return _terms.loss(raw, shares, weights)
        weight = roles.extras["log_variance"]
        terms = {"flow": log_variance(flow, weight(time, time)), "map": log_variance(map_, weight(s, t))}
        return _terms.loss(terms, shares, weights, raw)

    owners = {"log_variance": "student"} if learned_weight else {}
    return Method({"student": student_loss}, samplers.composed, owners)
