"""Solvers of the probability-flow ODE, and of the SDEs with its marginals, on the diagonal velocity b_t = v_{t,t}.

Found by the names of this package's files, with options in brackets: "euler", "ddim(eta=0.5)". Each file has

    solve(velocity, interpolant, x, grid, keys, cond, **options) -> Trajectory

from x at grid[0] to grid[-1], one step an interval; denoiser, noise and score are the interpolant's conversions of the
velocity, which is read as velocity(x, t, t, cond). One that adds noise draws it from `keys`, and its file says so by
ADDS_NOISE: True, or the name of the option that turns it on; READS_LEARNED_NOISE where it knows types.Noisy velocities.
"""

import sys
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64, Int

from flowmaps import lookup, rows
from flowmaps.errors import UsageError
from flowmaps.interpolants import Ends, Interpolant
from flowmaps.types import Array, Cond, Grid, Keys, Noisy, Velocity, evaluations

Points = Float[Array, "b *d"]
Times = Float[Array, " b"]
Step = Callable[..., tuple[Points, int]]
"""(x at s, s [B], t [B], number of the step, *times between [B]) -> x at t, and the evaluations that it took."""
GIVEN = ("velocity", "interpolant", "x", "grid", "keys", "cond")
"""What the program gives to every solver."""
UNROLLED = 4
"""Steps up to which a program holds each of them; beyond it holds one, in a loop, and compiles as fast as that one."""
GAVE_UP = -1
"""The count of evaluations of an adaptive solver that did not reach its tolerance."""


class Trajectory(NamedTuple):
    """A solution: its end, what it cost, and its way."""

    x: Points
    nfe: Int[Array, ""]
    """Network evaluations for one example, counted by the program that ran."""
    path: Float[Array, "k b *d"]
    """The states at the grid's times, from the first to the last."""


class Coefficients(NamedTuple):
    """A path's coefficients at the times of a grid, known when the program is built."""

    alpha: Float64[np.ndarray, " k"]
    beta: Float64[np.ndarray, " k"]
    log_snr: Float64[np.ndarray, " k"]
    """log(alpha / beta), half the log-SNR: the lambda of the DPM-Solver papers."""


def march(step: Step, x: Points, grid: Grid, *inner: Float64[np.ndarray, " n"]) -> Trajectory:
    """x carried along the grid, interval by interval; the count of evaluations travels with it.

    inner: one more time in each interval, which the step is given as it is given s and t.
    """
    times, *inner = (jnp.asarray(each, jnp.result_type(float)) for each in (grid, *inner))

    def advance(state: tuple[Points, Array], interval: tuple[Array, ...]) -> tuple[tuple[Points, Array], Points]:
        number, *at = interval
        s, t, *between = (jnp.full(x.shape[:1], time) for time in at)
        moved, calls = step(state[0], s, t, number, *between)
        return (moved, state[1] + calls), moved

    start = x, jnp.zeros((), jnp.int32)
    (end, nfe), states = along(advance, start, (jnp.arange(len(grid) - 1), times[:-1], times[1:], *inner))
    return Trajectory(end, nfe, jnp.concatenate([x[None], states]))


def along(advance: Callable[[Any, Any], tuple[Any, Any]], state: Any, intervals: tuple[Array, ...]) -> tuple[Any, Any]:
    """jax.lax.scan over the intervals of a grid, `intervals` arrays [k, ...] of what is told of each, without the loop
    where they are at most UNROLLED."""
    return jax.lax.scan(advance, state, intervals, unroll=len(intervals[0]) <= UNROLLED)


def joined(parts: Sequence[Trajectory]) -> Trajectory:
    """One way from several, each beginning where the one before ends."""
    path = jnp.concatenate([parts[0].path, *(part.path[1:] for part in parts[1:])])
    return Trajectory(parts[-1].x, sum(part.nfe for part in parts), path)


def ends(velocity: Velocity, interpolant: Interpolant, x: Points, t: Times, cond: Cond) -> Ends:
    """E[x0 | x_t = x] and E[x1 | x_t = x], from one evaluation; for a model with a latent beside them (types.Noisy) the
    ends of which x and b_t(x) are the path's combinations, all that a solver of the ODE needs."""
    return interpolant.ends_from_velocity(x, velocity(x, t, t, cond), t)


def means(velocity: Velocity, interpolant: Interpolant, x: Points, t: Times, cond: Cond) -> Ends:
    """E[x0 | x_t = x] and E[x1 | x_t = x] of any model, from one evaluation."""
    if isinstance(velocity, Noisy):
        return Ends(*velocity.ends(x, t, cond))
    return ends(velocity, interpolant, x, t, cond)


def velocity_and_noise(
    velocity: Velocity, interpolant: Interpolant, x: Points, t: Times, cond: Cond
) -> tuple[Points, Points]:
    """b_t(x) and the mean of the Gaussian part of x_t: the model's own (types.Noisy), or E[x0 | x_t = x]."""
    if isinstance(velocity, Noisy):
        return velocity.velocity_and_noise(x, t, cond)
    v = velocity(x, t, t, cond)
    return v, interpolant.ends_from_velocity(x, v, t).noise


def normal(keys: Keys, number: Array | int, x: Points) -> Points:
    """Standard normal rows like x, of the draw `number`."""
    return rows.normal(rows.fold(keys, number), x.shape[1:]).astype(x.dtype)


def noise(interpolant: Interpolant, keys: Keys, number: Array | int, x: Points) -> Points:
    """A draw of the source for step `number`."""
    return interpolant.source_std * normal(keys, number, x)


def coefficients(interpolant: Interpolant, grid: Grid) -> Coefficients:
    """alpha, beta and their log-ratio at the grid's times."""
    with jax.ensure_compile_time_eval(), np.errstate(divide="ignore", invalid="ignore"):
        t = jnp.asarray(grid, jnp.result_type(float))
        alpha, beta = (np.asarray(c.value(t), np.float64) for c in (interpolant.alpha, interpolant.beta))
        return Coefficients(alpha, beta, np.log(alpha) - np.log(beta))


def times_of(interpolant: Interpolant, log_snr: Float64[np.ndarray, " k"]) -> Float64[np.ndarray, " k"]:
    """The times at which log(alpha / beta) has the given values."""
    with jax.ensure_compile_time_eval():
        levels = jnp.asarray(np.exp(-log_snr), jnp.result_type(float))
        return np.asarray(interpolant.time_of_level(levels), np.float64)


def last_time(interpolant: Interpolant) -> float:
    """t_max, or where the path's slope is infinite there a thousandth of its times before."""
    end = interpolant.t_max
    return end if _finite_slope(interpolant, end) else end - (end - interpolant.t_min) / 1_000


def check_end(interpolant: Interpolant, grid: Grid) -> None:
    """Raises UsageError where the velocity is infinite at the grid's last time, for solvers that read it there."""
    if not _finite_slope(interpolant, grid[-1]):
        raise UsageError(
            f"this solver reads the velocity at time {grid[-1]:.4g}, where it is infinite on this path: choose one "
            f"such as euler or ddim, or end the grid before, sample.grid='uniform(last={last_time(interpolant):.4g})'"
        )


def denoised(way: Trajectory, velocity: Velocity, interpolant: Interpolant, t: float, cond: Cond) -> Trajectory:
    """The way with its end, at time t, replaced by E[x1 | x_t], which takes one evaluation more."""
    data = means(velocity, interpolant, way.x, jnp.full(way.x.shape[:1], t), cond).data
    return Trajectory(data, way.nfe + evaluations(velocity), way.path.at[-1].set(data))


def between(interpolant: Interpolant, grid: Grid, *shares: float) -> list[Float64[np.ndarray, " n"]]:
    """For each share, the time in every interval of the grid at that share of its rise in log-SNR."""
    log_snr = coefficients(interpolant, grid).log_snr
    return [times_of(interpolant, log_snr[:-1] + share * np.diff(log_snr)) for share in shares]


def plain_ends(solve: Callable[..., Trajectory]) -> Callable[..., Trajectory]:
    """A solver that works in the log-SNR takes the steps between times at which it is finite; a step from or to an
    infinite one (pure noise, or clean data) is DDIM's, of order 1 and of one evaluation."""

    def whole(velocity: Velocity, interpolant: Interpolant, x: Points, grid: Grid, keys: Keys, cond: Cond, **options):
        def ddim(x, s, t, number):
            return interpolant.point(*ends(velocity, interpolant, x, s, cond), t), evaluations(velocity)

        finite = np.isfinite(coefficients(interpolant, grid).log_snr)
        if not finite[1:-1].all():
            raise UsageError(f"the log-SNR is infinite inside the grid {grid}: only its ends may be such times")
        first, last = int(not finite[0]), len(grid) - 1 - int(not finite[-1])
        parts = [Trajectory(x, jnp.zeros((), jnp.int32), x[None])]
        if first:
            parts.append(march(ddim, x, grid[:2]))
        if last > first:
            parts.append(solve(velocity, interpolant, parts[-1].x, grid[first : last + 1], keys, cond, **options))
        if last + 1 < len(grid) and (len(grid) > 2 or not first):
            parts.append(march(ddim, parts[-1].x, grid[-2:]))
        return joined(parts)

    whole.__wrapped__ = solve  # whose options are those of the whole
    return whole


def load(solver: str) -> Callable[..., Trajectory]:
    """The `solve` of a solver with its options in brackets, bound. Raises UsageError."""
    name, chosen = lookup.parse_call("solver", solver)
    lookup.check_name("solver", name, names())
    solve = _module(name).solve
    return partial(solve, **lookup.checked(f"solver {name}", solve, GIVEN, chosen))


def needs_gaussian_source(solver: str, *, learned_noise: bool = False) -> bool:
    """Whether it adds noise, and so takes the velocity's conversions for the score: true of a Gaussian source that is
    independent of the data, and of no other coupling. With noise that the model has learned the SDEs need neither."""
    name, chosen = lookup.parse_call("solver", solver)
    module = _module(name)
    adds_noise = getattr(module, "ADDS_NOISE", False)
    adds = bool(chosen.get(adds_noise, 0)) if isinstance(adds_noise, str) else adds_noise
    return adds and not (learned_noise and getattr(module, "READS_LEARNED_NOISE", False))


def names() -> tuple[str, ...]:
    """All solvers."""
    return tuple(n for n in lookup.modules(sys.modules[__name__]) if hasattr(_module(n), "solve"))


def _finite_slope(interpolant: Interpolant, t: float) -> bool:
    with jax.ensure_compile_time_eval():
        t = jnp.asarray(t, jnp.result_type(float))
        return bool(jnp.isfinite(interpolant.alpha.slope(t)) & jnp.isfinite(interpolant.beta.slope(t)))


def _module(name: str) -> ModuleType:
    return lookup.load_module(sys.modules[__name__], "solver", name)
