"""EDM's sampler (Karras et al. 2022, arXiv:2206.00364, alg. 1 and 2, on any path): Heun's method on y = x / alpha over
the level rho = beta / alpha, dy = E[x0 | x] drho, whose step to rho = 0 is Euler's. With churn the level is first
raised by a share min(churn / K, sqrt 2 - 1), by adding noise, as far as the path reaches. Two evaluations a step.
"""

import numpy as np
from jaxtyping import Float64

from flowmaps import solvers
from flowmaps.interpolants import Interpolant
from flowmaps.rows import expand
from flowmaps.types import Cond, Grid, Keys, Velocity, evaluations

ADDS_NOISE = "churn"


@solvers.plain_ends
def solve(
    velocity: Velocity,
    interpolant: Interpolant,
    x: solvers.Points,
    grid: Grid,
    keys: Keys,
    cond: Cond,
    *,
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float = float("inf"),
    churn_noise: float = 1.0,
    denoise: bool = False,
) -> solvers.Trajectory:
    """See flowmaps.solvers. churn, churn_noise: S_churn and S_noise, at levels within [churn_min, churn_max]. denoise:
    ends at E[x1 | x], EDM's last step from sigma_min to 0, on a path that keeps noise."""
    raised = raised_times(interpolant, grid, churn, churn_min, churn_max)

    def level(t):
        return interpolant.beta.value(t) / interpolant.alpha.value(t)

    def noise(y, t):
        return solvers.ends(velocity, interpolant, expand(interpolant.alpha.value(t), y) * y, t, cond).noise

    def step(x, s, t, number, start):
        y = x / expand(interpolant.alpha.value(s), x)
        if churn:
            added = (level(start) ** 2 - level(s) ** 2).clip(0) ** 0.5
            y = y + churn_noise * expand(added, x) * solvers.noise(interpolant, keys, number, x)
        span = expand(level(t) - level(start), x)
        slope = noise(y, start)
        y = y + span * (slope + noise(y + span * slope, t)) / 2
        return expand(interpolant.alpha.value(t), x) * y, 2 * evaluations(velocity)

    way = solvers.march(step, x, grid, raised)
    return solvers.denoised(way, velocity, interpolant, grid[-1], cond) if denoise else way


def raised_times(
    interpolant: Interpolant, grid: Grid, churn: float, low: float, high: float
) -> Float64[np.ndarray, " n"]:
    """The times whose levels are those of the steps' starts, raised by churn."""
    if not churn:
        return grid[:-1]
    levels = np.exp(-solvers.coefficients(interpolant, grid).log_snr[:-1])
    sigma = interpolant.source_std * levels
    share = np.where((low <= sigma) & (sigma <= high), min(churn / (len(grid) - 1), 2**0.5 - 1), 0.0)
    return np.where(share > 0, solvers.times_of(interpolant, -np.log(levels * (1 + share))), grid[:-1])
