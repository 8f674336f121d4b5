"""alpha-Flow (Zhang et al. 2025, arXiv:2510.20771): from trajectory flow matching to MeanFlow. With the path's chord l
from s to u = s + alpha (t - s),

    L = E w |v_st(x_s) - sg[alpha l + (1 - alpha) v_ut(x_u)]|^2 / alpha,

the semigroup identity with the path's first leg: |v_st - chord|^2 at alpha = 1, and as alpha -> 0 MeanFlow's Eulerian
one, which takes over at alpha = 0; between them the fixed point is O(alpha) from the flow map. The residual r is
divided by alpha before the adaptive weight w = sg (|r / alpha|^2 + c)^-p, so that c means the same at every alpha; the
released code weighs by alpha / (|r|^2 + c), and clips the target to 4. Guidance is trained in as MeanFlow does: the
chord has then the guided velocity's slope at s in place of the path's, see _trained_guidance.py.

SoFlow (Luo et al. 2025, arXiv:2512.15657) is the same gradient, written as an inner product, with an alpha that decays
exponentially and two laws of times. Cost: 3F a diagonal row, 4F another (4.1F at
alpha = 0); guidance adds 1F, with kappa 2F off the diagonal.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jax import lax
from jax.lax import stop_gradient
from jaxtyping import Float

from flowmaps import rows, samplers, times
from flowmaps.errors import UsageError
from flowmaps.identities import eulerian, semigroup
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms, _trained_guidance
from flowmaps.types import Array, Batch, Cond, Keys, Loss, Method, Roles
from flowmaps.weightings import adaptive, squared

Row = Float[Array, " b"]
Points = Float[Array, "b *d"]
Alpha = Callable[[Array], Array]
"""step [] -> alpha [] in [0, 1]."""

STEEPNESS = 25.0
"""Of the sigmoid, over its interval."""
NEGLIGIBLE = 0.005
"""An alpha that near to 0 or 1 counts as it."""


def sigmoid(first: float, last: float, total_steps: int) -> Alpha:
    """From 1 to 0 between two shares of training, at their ends exactly."""

    def alpha(step: Array) -> Array:
        position = (step / total_steps - first) / (last - first)
        value = jax.nn.sigmoid(STEEPNESS * (0.5 - position))
        return jnp.where(value < NEGLIGIBLE, 0.0, jnp.where(value > 1 - NEGLIGIBLE, 1.0, value))

    return alpha


def exponential(first: float, last: float, total_steps: int) -> Alpha:
    """From the first alpha to the last, above 0."""
    return lambda step: first * (last / first) ** (step / total_steps)


SCHEDULES = {"sigmoid": sigmoid, "exponential": exponential}


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    schedule: Literal["sigmoid", "exponential"] = "sigmoid",
    between: tuple[float, float] = (0.5, 0.83),
    diagonal_fraction: float = 0.5,
    law: tuple = ("logit_normal", 0.4, 1.0),
    end_law: tuple = (),
    diagonal_law: tuple = (),
    power: float = 1.0,
    constant: float = 0.01,
    omega: float = 1.0,
    kappa: float = 0.0,
    interval: tuple[float, float] = (0.0, 1.0),
    label_dropout: float = 0.0,
) -> Method:
    """between: of the sigmoid the shares of training between which it lies (alpha leaves 1 and reaches 0 within, 21 %
    of the interval on either side of its middle), of the exponential its first and last value. law: of both times that
    are sorted into s <= t, or with end_law of the first of them; diagonal_law, where given, of the diagonal's. power,
    constant: of the adaptive weight. omega, kappa: guidance, in `interval` of s alone.

    Raises UsageError for a schedule outside of training, or guidance that needs unlabelled rows without label_dropout.
    """
    low, high = between
    if not (0 <= low < high <= 1 if schedule == "sigmoid" else 0 < high <= low <= 1):
        wanted = "0 <= first < last <= 1" if schedule == "sigmoid" else "0 < last <= first <= 1"
        raise UsageError(f"method.between={between}: the {schedule} schedule needs {wanted}")
    alpha_at = SCHEDULES[schedule](low, high, total_steps)
    guidance = _trained_guidance.make(omega, kappa, interval, label_dropout)
    shares = (diagonal_fraction, 1 - diagonal_fraction)
    draw = times.on_path(interpolant, *law)
    pair = times.sorted_pair(draw, times.on_path(interpolant, *end_law) if end_law else None)
    draw_diagonal = times.on_path(interpolant, *diagonal_law) if diagonal_law else lambda keys: pair(keys).s

    def map_loss(roles: Roles, batch: Batch, cond: Cond, keys: Keys, alpha: Array) -> tuple[Row, Row]:
        """The weighted loss, and the raw one: of r / alpha."""
        s, t = pair(rows.fold(keys, 1))
        x, slope = _terms.path_point(interpolant, batch, s)
        dropout = rows.fold(keys, 2)
        velocity = guidance.velocity(roles, x, s, slope, None, cond, dropout)

        def discrete() -> tuple[Row, Row]:
            chord = interpolant.chord(batch["x0"], batch["x1"], s, s + alpha * (t - s)) + (velocity - slope)
            share = jnp.full_like(s, alpha)
            residual = semigroup(roles.student, roles.target, x, s, t, share, cond, first=chord, dropout=dropout)
            squares = squared(residual / alpha)
            return alpha * adaptive(squares, power, constant), squares

        def mean_flow() -> tuple[Row, Row]:
            squares = squared(eulerian(roles.student, x, s, t, velocity, cond, dropout=dropout))
            return adaptive(squares, power, constant), squares

        return lax.cond(alpha > 0, discrete, mean_flow) if schedule == "sigmoid" else discrete()

    def flow_residual(roles: Roles, batch: Batch, cond: Cond, keys: Keys) -> Points:
        t, dropout = draw_diagonal(rows.fold(keys, 1)), rows.fold(keys, 2)
        x, velocity = _terms.path_point(interpolant, batch, t)
        v = roles.student(x, t, t, cond, dropout=dropout)
        return v - stop_gradient(guidance.velocity(roles, x, t, velocity, stop_gradient(v), cond, dropout))

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        (batch_d, cond_d, keys_d), (batch_o, cond_o, keys_o) = rows.split((batch, cond, keys), shares)
        flow = squared(flow_residual(roles, batch_d, cond_d, keys_d))
        alpha = alpha_at(step)
        map_, raw = map_loss(roles, batch_o, cond_o, keys_o, alpha)
        terms = {"flow": adaptive(flow, power, constant), "map": map_}
        loss = _terms.loss(terms, shares, shares, {"flow": flow, "map": raw})
        return loss._replace(metrics={**loss.metrics, "alpha": alpha})

    return Method({"student": student_loss}, samplers.composed)
