"""Explicit Runge-Kutta methods on dx/dt = b_t(x), from their tableaux."""

from collections.abc import Sequence

from flowmaps import solvers
from flowmaps.interpolants import Interpolant
from flowmaps.rows import expand
from flowmaps.types import Cond, Grid, Velocity, evaluations


def solve(
    velocity: Velocity,
    interpolant: Interpolant,
    x: solvers.Points,
    grid: Grid,
    cond: Cond,
    *,
    nodes: Sequence[float],
    stages: Sequence[Sequence[float]],
    weights: Sequence[float],
) -> solvers.Trajectory:
    """nodes: c of stages 2, 3, ...; stages: their rows of the matrix a; weights: b. Raises UsageError where a node at
    the end of the last step finds an infinite velocity."""
    if 1.0 in nodes:
        solvers.check_end(interpolant, grid)

    def step(x, s, t, number):
        span = expand(t - s, x)

        def moved(by: Sequence[float]):
            return x + span * sum(a * k for a, k in zip(by, slopes, strict=True) if a)

        slopes = [velocity(x, s, s, cond)]
        for node, row in zip(nodes, stages, strict=True):
            time = s + node * (t - s)
            slopes.append(velocity(moved(row), time, time, cond))
        return moved(weights), len(slopes) * evaluations(velocity)

    return solvers.march(step, x, grid)
