"""The flow map as a solver: x <- X_{s,t}(x), exact at any step for an exact map. It reads v_{s,t} off the diagonal."""

from flowmaps import identities, solvers
from flowmaps.interpolants import Interpolant
from flowmaps.types import Cond, Grid, Keys, Velocity, evaluations


def solve(
    velocity: Velocity, interpolant: Interpolant, x: solvers.Points, grid: Grid, keys: Keys, cond: Cond
) -> solvers.Trajectory:
    """See flowmaps.solvers."""

    def step(x, s, t, number):
        return identities.flow_map(velocity, x, s, t, cond), evaluations(velocity)

    return solvers.march(step, x, grid)
