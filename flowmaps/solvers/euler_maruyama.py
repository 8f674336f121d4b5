"""The Euler-Maruyama method on an SDE with the path's marginals: one evaluation a step, of weak order 1."""

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
    return _sde.solve(advance, 1, velocity, interpolant, x, grid, keys, cond, **options)


def advance(drift, x, s, t, increment):
    """Euler's step along the drift, and the noise."""
    return x + expand(t - s, x) * drift(x, s) + increment
