"""Heun's method (the explicit trapezoidal rule), order 2: two evaluations a step."""

from flowmaps import solvers
from flowmaps.interpolants import Interpolant
from flowmaps.solvers import _runge_kutta
from flowmaps.types import Cond, Grid, Keys, Velocity


def solve(
    velocity: Velocity, interpolant: Interpolant, x: solvers.Points, grid: Grid, keys: Keys, cond: Cond
) -> solvers.Trajectory:
    """See flowmaps.solvers."""
    tableau = {"nodes": (1.0,), "stages": ((1.0,),), "weights": (1 / 2, 1 / 2)}
    return _runge_kutta.solve(velocity, interpolant, x, grid, cond, **tableau)
