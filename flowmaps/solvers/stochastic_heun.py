"""Heun's method on an SDE with the path's marginals, its noise added first (Karras et al. 2022, alg. 2; SiT): two
evaluations a step. Of order 2 where there is no noise; of weak order 1 with it."""

from flowmaps import solvers
from flowmaps.interpolants import Interpolant
from flowmaps.rows import expand
from flowmaps.solvers import _sde
from flowmaps.types import Cond, Grid, Keys, Velocity

ADDS_NOISE = True
READS_LEARNED_NOISE = True


def solve(
    velocity: Velocity,
    interpolant: Interpolant,
    x: solvers.Points,
    grid: Grid,
    keys: Keys,
    cond: Cond,
    *,
    diffusion: str = "sigma",
    scale: float = 1.0,
    final: str = "denoise",
) -> solvers.Trajectory:
    """See flowmaps.solvers; diffusion, scale and final: see _sde."""
    options = {"diffusion": diffusion, "scale": scale, "final": final}
    return _sde.solve(advance, 2, velocity, interpolant, x, grid, keys, cond, **options)


def advance(drift, x, s, t, increment):
    """The trapezoidal rule along the drift, from the state with its noise."""
    x, span = x + increment, expand(t - s, x)
    slope = drift(x, s)
    return x + span * (slope + drift(x + span * slope, t)) / 2
