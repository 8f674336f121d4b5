"""DPM-Solver-fast (arXiv:2206.00927, section 3.4): K evaluations over the K intervals of the grid, as steps of
DPM-Solver-3 over three of them, and one or two steps of lower order at the end.
"""

import numpy as np

from flowmaps import solvers
from flowmaps.interpolants import Interpolant
from flowmaps.solvers import dpm_solver
from flowmaps.types import Cond, Grid, Keys, Velocity


@solvers.plain_ends
def solve(
    velocity: Velocity, interpolant: Interpolant, x: solvers.Points, grid: Grid, keys: Keys, cond: Cond
) -> solvers.Trajectory:
    """See flowmaps.solvers; the path has the states at the ends of these steps."""
    parts, start = [], 0
    for order, steps in runs(len(grid) - 1):
        nodes = grid[start + order * np.arange(steps + 1)]
        x = parts[-1].x if parts else x
        parts.append(dpm_solver.solve(velocity, interpolant, x, nodes, keys, cond, order=order))
        start += order * steps
    return solvers.joined(parts)


def runs(evaluations: int) -> list[tuple[int, int]]:
    """(order, number of steps) of each run of equal orders."""
    threes, rest = divmod(evaluations, 3)
    tail = {0: [(3, threes - 1), (2, 1), (1, 1)], 1: [(3, threes), (1, 1)], 2: [(3, threes), (2, 1)]}[rest]
    return [(order, steps) for order, steps in tail if steps > 0]
