"""Predictor-corrector sampling (Song et al. 2021, arXiv:2011.13456, alg. 1): a step of the reverse SDE by
Euler-Maruyama, then Langevin steps at the time reached, of size 2 (snr |z| / |score|)^2. The norms are those of noise
alone, |score| = |z| / (beta source_std), where the paper takes means over the batch: so a sample does not depend on
those beside it. The last step denoises.
"""

import jax
import jax.numpy as jnp

from flowmaps import solvers
from flowmaps.interpolants import Interpolant
from flowmaps.rows import expand
from flowmaps.solvers import _sde, ddim
from flowmaps.types import Cond, Grid, Keys, Velocity, evaluations

ADDS_NOISE = True


def solve(
    velocity: Velocity,
    interpolant: Interpolant,
    x: solvers.Points,
    grid: Grid,
    keys: Keys,
    cond: Cond,
    *,
    snr: float = 0.16,
    corrections: int = 1,
) -> solvers.Trajectory:
    """See flowmaps.solvers. corrections: Langevin steps after each step but the last one."""
    diffusion = _sde.diffusions(interpolant)["reverse"]
    _sde.check(lambda t: diffusion(t) / interpolant.beta.value(t), "reverse", grid[:-1])

    def predicted(x, s, t, number):
        v = velocity(x, s, s, cond)
        score = interpolant.score(interpolant.ends_from_velocity(x, v, s).noise, s)
        w = interpolant.source_std**2 * diffusion(s)
        z = solvers.noise(interpolant, keys, number * (1 + corrections), x)
        return x + expand(t - s, x) * (v + expand(w, x) * score) + expand(jnp.sqrt(2 * diffusion(s) * (t - s)), x) * z

    def corrected(x, t, number, i):
        score = interpolant.score(solvers.ends(velocity, interpolant, x, t, cond).noise, t)
        z = solvers.normal(keys, number * (1 + corrections) + 1 + i, x)
        size = 2 * (snr * interpolant.beta.value(t) * interpolant.source_std) ** 2
        return x + expand(size, x) * score + expand(jnp.sqrt(2 * size), x) * z

    def step(x, s, t, number):
        x = predicted(x, s, t, number)
        x = jax.lax.fori_loop(0, corrections, lambda i, x: corrected(x, t, number, i), x)
        return x, (1 + corrections) * evaluations(velocity)

    start = solvers.march(step, x, grid[:-1])
    return solvers.joined([start, ddim.solve(velocity, interpolant, start.x, grid[-2:], keys, cond)])
