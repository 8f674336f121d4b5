"""Annealed Langevin dynamics (Song and Ermon 2019, arXiv:1907.05600, alg. 1): at each time of the grid, with the noise
level sigma = beta source_std, `per_level` steps

    x <- x + (a / 2) score + sqrt(a) z,    a = step_size sigma^2 / sigma_last^2,

sigma_last that of the grid's last time. In the convention of the released code the step is twice as large. Each step's
state is scaled to the next time's alpha, and at last denoised, if asked, as NCSN's second version does.
"""

import jax
import jax.numpy as jnp

from flowmaps import lookup, solvers
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.rows import expand
from flowmaps.types import Cond, Grid, Keys, Velocity, evaluations

CONVENTIONS = {"paper": 1.0, "released": 2.0}

ADDS_NOISE = True


def solve(
    velocity: Velocity,
    interpolant: Interpolant,
    x: solvers.Points,
    grid: Grid,
    keys: Keys,
    cond: Cond,
    *,
    step_size: float = 2e-5,
    per_level: int = 100,
    convention: str = "paper",
    denoise: bool = False,
) -> solvers.Trajectory:
    """See flowmaps.solvers. Raises UsageError for an unknown convention, or where the last level is 0."""
    lookup.check_name("convention of annealed_langevin", convention, CONVENTIONS)
    alpha, beta, _ = solvers.coefficients(interpolant, grid)
    if alpha[0] == 0:
        raise UsageError(
            "annealed_langevin needs data at the first time: choose a path that keeps some, or a later start"
        )
    if beta[-1] == 0:
        raise UsageError(
            "annealed_langevin needs noise at the last time: choose a path that keeps some, or an earlier end"
        )
    size = CONVENTIONS[convention] * step_size / beta[-1] ** 2

    def level(x, t, number):
        a = expand(size * interpolant.beta.value(t) ** 2, x)

        def one(i, x):
            score = interpolant.score(solvers.ends(velocity, interpolant, x, t, cond).noise, t)
            z = solvers.normal(keys, number * per_level + i, x)
            return x + a / 2 * score + jnp.sqrt(a) * z

        return jax.lax.fori_loop(0, per_level, one, x)

    def step(x, s, t, number):
        rescaled = expand(interpolant.alpha.value(t) / interpolant.alpha.value(s), x) * x
        return level(rescaled, t, number + 1), per_level * evaluations(velocity)

    first = level(x, jnp.full(x.shape[:1], grid[0]), 0)
    start = solvers.Trajectory(first, jnp.asarray(per_level * evaluations(velocity)), first[None])
    way = solvers.joined([start, solvers.march(step, first, grid)])
    return solvers.denoised(way, velocity, interpolant, grid[-1], cond) if denoise else way
