"""Solvers of the probability-flow ODE on the diagonal velocity, found by the names of this package's files.

Each file has `solve(velocity, interpolant, x, grid, keys, cond) -> Trajectory`.
"""

import sys
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from flowmaps import lookup
from flowmaps.types import Array, Grid

Points = Float[Array, "b *d"]
Step = Callable[[Points, Float[Array, " b"], Float[Array, " b"], Array], tuple[Points, int]]
"""(x at s, s [B], t [B], number of the step) -> x at t, and the network evaluations that it took."""


class Trajectory(NamedTuple):
    """Where a solution ends and what it cost."""

    x: Points
    nfe: Int[Array, ""]
    """Network evaluations for one example, counted by the program that ran."""


def march(step: Step, x: Points, grid: Grid) -> Trajectory:
    """x carried along the grid, interval by interval; the count of evaluations travels with it."""

    def advance(state: Trajectory, interval: tuple[Array, Array, Array]) -> tuple[Trajectory, None]:
        number, s, t = interval
        rows = jnp.ones(x.shape[:1], grid.dtype)
        moved, calls = step(state.x, s * rows, t * rows, number)
        return Trajectory(moved, state.nfe + calls), None

    numbers = jnp.arange(grid.shape[0] - 1)
    start = Trajectory(x, jnp.zeros((), jnp.int32))
    return jax.lax.scan(advance, start, (numbers, grid[:-1], grid[1:]))[0]


def load(name: str) -> Callable:
    """The `solve` of a solver. Raises UsageError."""
    return lookup.load_module(sys.modules[__name__], "solver", name).solve


def names() -> tuple[str, ...]:
    """All solvers."""
    return lookup.modules(sys.modules[__name__])
