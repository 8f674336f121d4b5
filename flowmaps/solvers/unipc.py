"""UniPC (Zhao et al. 2023, arXiv:2302.04867): a predictor of order p from the data predictions at the last p times, a
corrector of order p + 1 from the one at the step's end, which the next step needs anyway: one evaluation a step.

With h the step in l = log(alpha / beta), g = -h, r_j = (l_j - l_s) / h and B = g ("bh1") or exp(g) - 1 ("bh2"),

    x_t = (beta_t / beta_s) x_s - alpha_t (exp(g) - 1) D_s - alpha_t B sum_j c_j (D_j - D_s) / r_j,

where the c_j solve sum_j c_j r_j^(i-1) = i! phi_{i+1} / B, phi_1 = exp(g) - 1, phi_{i+1} = phi_i / g - 1 / i!.
"""

import math

import numpy as np
from jaxtyping import Float64

from flowmaps import lookup, solvers
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.solvers import _multistep
from flowmaps.types import Cond, Grid, Keys, Velocity, evaluations


@solvers.plain_ends
def solve(
    velocity: Velocity,
    interpolant: Interpolant,
    x: solvers.Points,
    grid: Grid,
    keys: Keys,
    cond: Cond,
    *,
    order: int = 2,
    scale: str = "bh2",
    corrector: bool = True,
    lower_order_final: bool = True,
) -> solvers.Trajectory:
    """See flowmaps.solvers. order: 1 to 3, of the predictor. Raises UsageError for another, or an unknown scale."""
    lookup.check_name("scale of unipc", scale, ("bh1", "bh2"))
    if order not in (1, 2, 3):
        raise UsageError(f"unipc(order={order}): there are orders 1, 2 and 3")

    def data(x, t):
        return solvers.ends(velocity, interpolant, x, t, cond).data

    each = _multistep.orders(len(grid) - 1, order, falls=lower_order_final)
    predicts = weights(interpolant, grid, each, scale, corrector=False)
    corrects = weights(interpolant, grid, each, scale, corrector=True) if corrector else None
    return _multistep.solve(data, x, grid, predicts, evaluations(velocity), corrects)


def weights(
    interpolant: Interpolant, grid: Grid, orders: list[int], scale: str, *, corrector: bool
) -> _multistep.Weights:
    """Of x and of D: at the step's start and before it; of a corrector, at its end before these."""
    alpha, beta, log_snr = solvers.coefficients(interpolant, grid)
    rows = []
    for k, order in enumerate(orders):
        h = log_snr[k + 1] - log_snr[k]
        ratios = (log_snr[k - np.arange(1, order)] - log_snr[k]) / h
        big = -h if scale == "bh1" else np.expm1(-h)
        if corrector:
            ratios = np.concatenate([[1.0], ratios])
        by = shares(ratios, -h, big) / ratios
        here = -np.expm1(-h) + big * by.sum()
        row = -big * by
        row = [row[0], here, *row[1:]] if corrector else [here, *row]
        rows.append(alpha[k + 1] * np.asarray(row))
    return _multistep.Weights(beta[1:] / beta[:-1], _multistep.padded(rows, max(orders) + corrector))


def shares(ratios: Float64[np.ndarray, " p"], g: float, big: float) -> Float64[np.ndarray, " p"]:
    """The c_j; a single one is 1/2, as published."""
    if len(ratios) <= 1:
        return np.full(len(ratios), 0.5)
    phi, sides = np.expm1(g), []
    for i in range(1, len(ratios) + 1):
        phi = phi / g - 1 / math.factorial(i)
        sides.append(math.factorial(i) * phi / big)
    return np.linalg.solve(np.vander(ratios, increasing=True).T, np.array(sides))
