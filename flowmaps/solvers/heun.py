"""Heun's method (the explicit trapezoidal rule), order 2: two evaluations a step."""

from jaxtyping import Float

from flowmaps import solvers
from flowmaps.interpolants import Interpolant
from flowmaps.rows import expand
from flowmaps.types import Array, Cond, Grid, Keys, Velocity, evaluations


def solve(
    velocity: Velocity,
    interpolant: Interpolant,
    x: Float[Array, "b *d"],
    grid: Grid,
    keys: Keys,
    cond: Cond,
) -> solvers.Trajectory:
    """x at grid[0] carried to grid[-1] along dx/dt = v_{t,t}(x). Deterministic: `keys` is not read."""

    def step(x, s, t, number):
        span = expand(t - s, x)
        slope = velocity(x, s, s, cond)
        end_slope = velocity(x + span * slope, t, t, cond)
        return x + span * (slope + end_slope) / 2, 2 * evaluations(velocity)

    return solvers.march(step, x, grid)
