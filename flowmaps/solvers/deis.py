"""DEIS (Zhang and Chen 2023, arXiv:2204.13902): with y = x / alpha and rho = beta / alpha, dy = N drho exactly, and the
noise prediction N is replaced by the polynomial through its last order + 1 values, in t (tAB) or in rho (rhoAB). Order
0 is DDIM; one evaluation a step.
"""

import jax
import jax.numpy as jnp
import numpy as np

from flowmaps import lookup, solvers
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.solvers import _multistep
from flowmaps.types import Cond, Grid, Keys, Velocity, evaluations

NODES, WEIGHTS = np.polynomial.legendre.leggauss(12)


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
    variable: str = "t",
) -> solvers.Trajectory:
    """See flowmaps.solvers. order: 0 to 3, of the polynomial. variable: t or rho. Raises UsageError for others."""
    lookup.check_name("variable of deis", variable, ("t", "rho"))
    if order not in range(4):
        raise UsageError(f"deis(order={order}): there are orders 0 to 3")

    def noise(x, t):
        return solvers.ends(velocity, interpolant, x, t, cond).noise

    return _multistep.solve(noise, x, grid, weights(interpolant, grid, order, variable), evaluations(velocity))


def weights(interpolant: Interpolant, grid: Grid, order: int, variable: str) -> _multistep.Weights:
    """Of x and of N at the last times: alpha_t int prod (u - u_m) / (u_j - u_m) drho by Gauss-Legendre quadrature."""
    alpha, beta, _ = solvers.coefficients(interpolant, grid)
    nodes = grid[:-1, None] + (NODES + 1) / 2 * np.diff(grid)[:, None]
    with jax.ensure_compile_time_eval():
        t = jnp.asarray(nodes, jnp.result_type(float))
        rho = np.asarray(jnp.exp(interpolant.log_level(t)), np.float64)
        slope = np.asarray(-interpolant.level_fall(t), np.float64) * rho
    at, knots = (nodes, grid) if variable == "t" else (rho, beta / alpha)
    rows = np.zeros((len(grid) - 1, order + 1))
    for k, reach in enumerate(_multistep.orders(len(grid) - 1, order + 1, falls=False)):
        past = knots[k - np.arange(reach)]
        for j in range(reach):
            others = np.delete(past, j)
            basis = np.prod((at[k][:, None] - others) / (past[j] - others), axis=1)
            rows[k, j] = alpha[k + 1] * (WEIGHTS * basis * slope[k]).sum() * (grid[k + 1] - grid[k]) / 2
    return _multistep.Weights(alpha[1:] / alpha[:-1], rows)
