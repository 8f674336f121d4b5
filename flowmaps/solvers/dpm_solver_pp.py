"""DPM-Solver++ (Lu et al. 2022, arXiv:2211.01095): exponential integrators of the data prediction D, in the log-SNR

    x_t = (beta_t / beta_s) x_s + beta_t int exp(l) D dl,    l = log(alpha / beta), over [l_s, l_t], h = l_t - l_s.

Orders 1 (DDIM), 2 and 3, multistep (2M, 3M: one evaluation a step) or single-step (2S: two). The third-order multistep
weight as published is half of what the third order needs and converges at order 2; `published=True` keeps it.
"""

import numpy as np

from flowmaps import solvers
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.rows import expand
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
    multistep: bool = True,
    published: bool = False,
    lower_order_final: bool = True,
) -> solvers.Trajectory:
    """See flowmaps.solvers. Raises UsageError for an order that does not exist."""
    if order not in ((1, 2, 3) if multistep else (1, 2)):
        raise UsageError(f"dpm_solver_pp(order={order}): there are orders 1, 2 and 3, the last one only as multistep")

    def data(x, t):
        return solvers.ends(velocity, interpolant, x, t, cond).data

    if multistep or order == 1:
        each = _multistep.orders(len(grid) - 1, order, falls=lower_order_final)
        step = weights(interpolant, grid, each, published=published)
        return _multistep.solve(data, x, grid, step, evaluations(velocity))
    return single_step(data, interpolant, x, grid, 2 * evaluations(velocity))


def weights(interpolant: Interpolant, grid: Grid, orders: list[int], *, published: bool = False) -> _multistep.Weights:
    """Of x and of D at the last times."""
    alpha, beta, log_snr = solvers.coefficients(interpolant, grid)
    steps = np.diff(log_snr)
    rows = []
    for k, order in enumerate(orders):
        h, r0, r1 = steps[k], *(steps[k - j] / steps[k] if k >= j else np.nan for j in (1, 2))
        first = -np.expm1(-h)
        second = 1 + np.expm1(-h) / h
        third = (0.5 if published else 1.0) * (1 - 2 * (np.expm1(-h) + h) / h**2)
        here, slope, older = np.array([1.0, 0, 0]), np.array([1.0, -1, 0]) / r0, np.array([0, 1.0, -1]) / r1
        if order == 1:
            row = first * here
        elif order == 2:  # the slope's weight is first / 2, as published, which agrees with `second` to order 2
            row = first * (here + slope / 2)
        else:
            bend = (slope - older) / (r0 + r1)
            row = first * here + second * (slope + r0 * bend) + third * bend
        rows.append(alpha[k + 1] * row)
    return _multistep.Weights(beta[1:] / beta[:-1], np.stack(rows)[:, : max(orders)])


def single_step(
    data: _multistep.Predict, interpolant: Interpolant, x: solvers.Points, grid: Grid, calls: int
) -> solvers.Trajectory:
    """DPM-Solver++(2S) with its middle at half the step in log-SNR."""
    alpha, beta = interpolant.alpha.value, interpolant.beta.value

    def step(x, s, t, number, middle):
        def moved(prediction, to):
            scale = beta(to) / beta(s)
            return expand(scale, x) * x + expand(alpha(to) - scale * alpha(s), x) * prediction

        return moved(data(moved(data(x, s), middle), middle), t), calls

    return solvers.march(step, x, grid, *solvers.between(interpolant, grid, 1 / 2))
