"""Euler's method, order 1: one evaluation a step. On the linear path it is DDIM."""

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
        return x + expand(t - s, x) * velocity(x, s, s, cond), evaluations(velocity)

    return solvers.march(step, x, grid)
