"""DPM-Solver (Lu et al. 2022, arXiv:2206.00927): exponential integrators of the noise prediction N, in the log-SNR

    x_t = (alpha_t / alpha_s) x_s - alpha_t int exp(-l) N dl,    l = log(alpha / beta), over [l_s, l_t], h = l_t - l_s,

single-step, of order 1 (DDIM), 2 (middle at 1/2) or 3 (at 1/3 and 2/3) and as many evaluations a step.
"""

import jax.numpy as jnp

from flowmaps import solvers
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.rows import expand
from flowmaps.types import Cond, Grid, Keys, Velocity, evaluations

MIDDLES = {1: (), 2: (1 / 2,), 3: (1 / 3, 2 / 3)}


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
) -> solvers.Trajectory:
    """See flowmaps.solvers. Raises UsageError for an order that does not exist."""
    if order not in MIDDLES:
        raise UsageError(f"dpm_solver(order={order}): there are orders 1, 2 and 3")
    alpha, beta = interpolant.alpha.value, interpolant.beta.value

    def noise(x, t):
        return solvers.ends(velocity, interpolant, x, t, cond).noise

    def step(x, s, t, number, *middles):
        def moved(to, first, second=0.0, change=0.0):  # the integral of N = first + second's share of change
            h = jnp.log(alpha(to) / alpha(s)) - jnp.log(beta(to) / beta(s))
            grown = jnp.expm1(h)
            linear = expand(beta(to) * (grown / h - 1), x) * second * change
            return expand(alpha(to) / alpha(s), x) * x - expand(beta(to) * grown, x) * first - linear

        start = noise(x, s)
        if order == 1:
            return moved(t, start), evaluations(velocity)
        middle = noise(moved(middles[0], start), middles[0])
        if order == 2:
            return moved(t, middle), 2 * evaluations(velocity)
        later = noise(moved(middles[1], start, 2.0, middle - start), middles[1])
        return moved(t, start, 1.5, later - start), 3 * evaluations(velocity)

    return solvers.march(step, x, grid, *solvers.between(interpolant, grid, *MIDDLES[order]))
