"""The classical Runge-Kutta method, order 4: four evaluations a step."""

from flowmaps import solvers
from flowmaps.interpolants import Interpolant
from flowmaps.solvers import _runge_kutta
from flowmaps.types import Cond, Grid, Keys, Velocity

NODES = (1 / 2, 1 / 2, 1.0)
STAGES = ((1 / 2,), (0.0, 1 / 2), (0.0, 0.0, 1.0))
WEIGHTS = (1 / 6, 1 / 3, 1 / 3, 1 / 6)


def solve(
    velocity: Velocity, interpolant: Interpolant, x: solvers.Points, grid: Grid, keys: Keys, cond: Cond
) -> solvers.Trajectory:
    """See flowmaps.solvers."""
    return _runge_kutta.solve(velocity, interpolant, x, grid, cond, nodes=NODES, stages=STAGES, weights=WEIGHTS)
