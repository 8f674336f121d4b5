"""The explicit midpoint rule, order 2: two evaluations a step."""

from flowmaps import solvers
from flowmaps.interpolants import Interpolant
from flowmaps.solvers import _runge_kutta
from flowmaps.types import Cond, Grid, Keys, Velocity


def solve(
    velocity: Velocity, interpolant: Interpolant, x: solvers.Points, grid: Grid, keys: Keys, cond: Cond
) -> solvers.Trajectory:
    """See flowmaps.solvers."""
    tableau = {"nodes": (1 / 2,), "stages": ((1 / 2,),), "weights": (0.0, 1.0)}
    return _runge_kutta.solve(velocity, interpolant, x, grid, cond, **tableau)
