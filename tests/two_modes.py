"""What the tests of solvers share: a probability-flow ODE with two modes, its exact solution, and grids inside it."""

from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from flowmaps import interpolants, rows, solvers
from flowmaps.interpolants import Interpolant
from flowmaps.types import Velocity

PATHS = {
    "linear": interpolants.linear,
    "trigonometric": interpolants.trigonometric,
    "variance_preserving": interpolants.variance_preserving,
}
COUNT = 64


def keys(count):
    return rows.keys(jax.random.key(0), 0, count)


def of(oracle):
    return lambda x, s, t, cond, *, dropout=None: oracle.velocity(x, s)


def two_modes(path):
    """The velocity of data at +-1 with standard deviation 0.3 in each coordinate, short enough to compile at once."""

    def velocity(x, s, t, cond, *, dropout=None):
        a, b = (c.value(s)[:, None] for c in (path.alpha, path.beta))
        variance = (0.3 * a) ** 2 + b**2
        data = (0.09 * a * x + b**2 * jnp.tanh(a * x / variance)) / variance
        return path.velocity((x - a * data) / b, data, s)

    return velocity


def ends_of(path):
    """The times at which beta is 0.98 and 0.1."""
    level = jnp.array([0.98, 0.1])
    t = jnp.linspace(path.t_min, path.t_max, 20_001)
    return np.interp(-level, -path.beta.value(t), t)


def grid_of(name, path, steps):
    first, last = ends_of(path)
    if name == "uniform":
        return np.linspace(first, last, steps + 1)
    start, end = solvers.coefficients(path, np.array([first, last])).log_snr
    if name == "log_snr":
        return solvers.times_of(path, np.linspace(start, end, steps + 1))
    return solvers.times_of(path, -7 * np.log(np.linspace(np.exp(-start / 7), np.exp(-end / 7), steps + 1)))


class Problem(NamedTuple):
    """An ODE with its starts [COUNT, 1] and exact ends."""

    path: Interpolant
    velocity: Velocity
    x: np.ndarray
    exact: np.ndarray


@cache
def problem(name: str) -> Problem:
    """On the path of this name; the ends by 8,192 steps of order 4."""
    path = PATHS[name]()
    with jax.enable_x64(True):
        x, velocity = jax.random.normal(jax.random.key(1), (COUNT, 1)), two_modes(path)
        grid = grid_of("uniform", path, 8192)
        exact = jax.jit(lambda x: solvers.load("rk4")(velocity, path, x, grid, keys(COUNT), {}).x)(x)
    return Problem(path, velocity, x, exact)
