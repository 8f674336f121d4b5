"""Euler's method, order 1: one evaluation a step. On the linear path it is DDIM."""

from flowmaps import solvers
from flowmaps.interpolants import Interpolant
from flowmaps.solvers import _runge_kutta
from flowmaps.types import Cond, Grid, Keys, Velocity


def solve(
    velocity: Velocity, interpolant: Interpolant, x: solvers.Points, grid: Grid, keys: Keys, cond: Cond
) -> solvers.Trajectory:
    """See flowmaps.solvers."""
    return _runge_kutta.solve(velocity, interpolant, x, grid, cond, nodes=(), stages=(), weights=(1.0,))
