"""Linear multistep methods: x_t = scale x_s + sum_j weight_j m_j over the predictions m made at the last times.

All weights are numbers of the grid alone, made before the program runs.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float64

from flowmaps import solvers
from flowmaps.types import Grid

Predict = Callable[[solvers.Points, solvers.Times], solvers.Points]
"""(x at t, t) -> the model's prediction of data or noise, one evaluation."""


class Weights(NamedTuple):
    """Of each interval's step."""

    scale: Float64[np.ndarray, " k"]
    """Of x at the interval's start."""
    weights: Float64[np.ndarray, "k j"]
    """Of the predictions at its start, at the time before, ...; in a corrector, at its end before all of them."""


def solve(
    predict: Predict, x: solvers.Points, grid: Grid, step: Weights, calls: int, corrector: Weights | None = None
) -> solvers.Trajectory:
    """One prediction a step. A corrector takes the step once more with the prediction at its end, which the next step
    needs anyway; the last step has no next one, and goes uncorrected."""
    order = step.weights.shape[1]
    nothing = Weights(np.ones(1), np.zeros((1, order + 1)))
    unused = Weights(np.ones(len(grid) - 1), np.zeros((len(grid) - 1, order + 1)))
    before = [np.concatenate([none, each[:-1]]) for none, each in zip(nothing, corrector or unused, strict=True)]

    def advance(state: tuple, interval: tuple) -> tuple[tuple, solvers.Points]:
        x, start, history, nfe = state
        number, t, scale, weights, scale_before, weights_before = interval
        known = jnp.concatenate([predict(x, jnp.full(x.shape[:1], t))[None], history])
        if corrector is not None:
            corrected = scale_before * start + jnp.tensordot(weights_before, known, 1)
            x = jnp.where(number > 0, corrected, x)
        moved = scale * x + jnp.tensordot(weights, known[:-1], 1)
        return (moved, x, known[:-1], nfe + calls), x

    numbers = (jnp.asarray(each, jnp.result_type(float)) for each in (grid[:-1], *step, *before))
    state = x, x, jnp.zeros((order, *x.shape), x.dtype), jnp.zeros((), jnp.int32)
    (end, _, _, nfe), states = solvers.along(advance, state, (jnp.arange(len(grid) - 1), *numbers))
    return solvers.Trajectory(end, nfe, jnp.concatenate([states, end[None]]))


def orders(steps: int, order: int, *, falls: bool = True) -> list[int]:
    """The order of each step: rising at the start, for want of a history, and with `falls` also falling at the end of
    a short run, where high orders overshoot (arXiv:2211.01095, below 15 steps)."""
    rising = [min(order, k + 1) for k in range(steps)]
    return [min(o, steps - k) for k, o in enumerate(rising)] if falls and steps < 15 else rising


def padded(rows: list, width: int) -> Float64[np.ndarray, "k j"]:
    """Rows of weights of several lengths as one table."""
    return np.stack([np.pad(np.asarray(row, np.float64), (0, width - len(row))) for row in rows])
