"""MeanFlow (Geng et al. 2025, arXiv:2505.13447). The paper's clock is turned: its u(z, r, t) is -v_{1-t,1-r}(z).

    L = E w |v_st(x_s) - sg[g + (t - s) (d/ds + g . grad) v_st(x_s)]|^2,    g = dx_s/ds or its guided form

the Eulerian identity with the conditional velocity in it, the gradient through v alone, and the adaptive weight
w = sg (|r|^2 + c)^-p. On the diagonal share of rows s = t and no derivative is taken. Guidance is trained in, see
_trained_guidance.py. Cost: 3F a diagonal row, 4.1F another; guidance adds 1F (2F off the diagonal with kappa), the
model's tangent 1F off the diagonal.
"""

from typing import Literal

from jax.lax import stop_gradient
from jaxtyping import Float

from flowmaps import rows, samplers, times
from flowmaps.identities import eulerian
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms, _trained_guidance
from flowmaps.types import Array, Batch, Cond, Keys, Loss, Method, Roles
from flowmaps.weightings import adaptive, squared

Row = Float[Array, " b"]
Points = Float[Array, "b *d"]


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    diagonal_fraction: float = 0.75,
    law: tuple = ("logit_normal", 0.4, 1.0),
    tangent: Literal["conditional", "model"] = "conditional",
    power: float = 1.0,
    constant: float = 0.01,
    omega: float = 1.0,
    kappa: float = 0.0,
    interval: tuple[float, float] = (0.0, 1.0),
    label_dropout: float = 0.0,
    dropped_rows: Literal["all", "diagonal"] = "all",
    diagonal_times: Literal["sorted", "law"] = "sorted",
) -> Method:
    """The paper's options first, the released code's in brackets.

    law: of the two times that are sorted into s <= t; the paper's logit-normal(-0.4, 1) has mean +0.4 here. tangent:
    the direction of the derivative, the conditional velocity, or the model's own v_ss (improved MeanFlow's, of less
    variance). power, constant: of the adaptive weight, 1 and 1e-3 [0.01]. omega, kappa: guidance, in `interval` of s
    alone. label_dropout: dropped rows have no guidance and no label; dropped_rows: any [those on the diagonal].
    diagonal_times: the start of a sorted pair, as in paper and code, or one draw of the law.

    Raises UsageError for guidance that needs unlabelled rows without label_dropout.
    """
    shares = (diagonal_fraction, 1 - diagonal_fraction)
    draw = times.within(times.law(*law), interpolant.t_min, interpolant.t_max)
    pair = times.sorted_pair(draw)
    guidance = _trained_guidance.make(omega, kappa, interval, label_dropout)

    def diagonal_residual(roles: Roles, batch: Batch, cond: Cond, keys: Keys) -> Points:
        t = pair(rows.fold(keys, 1)).s if diagonal_times == "sorted" else draw(rows.fold(keys, 1))
        x, velocity = _terms.path_point(interpolant, batch, t)
        dropout = rows.fold(keys, 2)
        v = roles.student(x, t, t, cond, dropout=dropout)
        own = stop_gradient(v)  # the student's output is the model's own velocity here, for nothing
        return v - stop_gradient(guidance.velocity(roles, x, t, velocity, own, cond, dropout))

    def map_residual(roles: Roles, batch: Batch, cond: Cond, keys: Keys) -> Points:
        s, t = pair(rows.fold(keys, 1))
        x, velocity = _terms.path_point(interpolant, batch, s)
        dropout = rows.fold(keys, 2)
        own = roles.target(x, s, s, cond, dropout=dropout) if tangent == "model" else None
        velocity = guidance.velocity(roles, x, s, velocity, own, cond, dropout)
        return eulerian(roles.student, x, s, t, velocity, cond, direction=own, dropout=dropout)

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        diagonal, off = rows.split((batch, rows.condition(batch), keys), shares)

        def drop(cond: Cond, keys: Keys, rate: float) -> Cond:
            return _terms.drop_labels(cond, rows.fold(keys, 0), rate)

        batch_d, cond_d, keys_d = diagonal
        batch_o, cond_o, keys_o = off
        rate_d, rate_o = (
            (label_dropout, label_dropout) if dropped_rows == "all" else (label_dropout / diagonal_fraction, 0.0)
        )
        raw = {
            "flow": squared(diagonal_residual(roles, batch_d, drop(cond_d, keys_d, rate_d), keys_d)),
            "map": squared(map_residual(roles, batch_o, drop(cond_o, keys_o, rate_o), keys_o)),
        }
        terms = {name: adaptive(squares, power, constant) for name, squares in raw.items()}
        return _terms.loss(terms, shares, shares, raw)

    return Method({"student": student_loss}, samplers.composed)
