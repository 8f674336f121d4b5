"""Grids of times, by name with options in brackets: "uniform", "karras(rho=5)". float64 [steps + 1], rising.

A grid whose last level is above the path's lowest ends with a step to t_max, as EDM's ends at sigma = 0.
"""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float64

from flowmaps import lookup, solvers
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.types import Grid


def uniform(
    interpolant: Interpolant, steps: int, *, first: float | int | None = None, last: float | int | None = None
) -> Grid:
    """Equal steps from `first` to `last`, by default the path's ends."""
    low = interpolant.t_min if first is None else first
    return np.linspace(low, interpolant.t_max if last is None else last, steps + 1)


def log_snr(
    interpolant: Interpolant, steps: int, *, first: float | int | None = None, last: float | int | None = None
) -> Grid:
    """Equal steps of log(alpha / beta) from time `first` to `last`, by default the path's ends; then to t_max."""
    low = interpolant.t_min if first is None else first
    high = interpolant.t_max if last is None else last
    start, end = solvers.coefficients(interpolant, np.array([low, high])).log_snr
    if not np.isfinite([start, end]).all():
        raise UsageError(
            f"grid log_snr: the log-SNR of this path is infinite at time {low if np.isinf(start) else high}; begin "
            "and end inside, for example sample.grid='log_snr(first=0.01, last=0.99)'"
        )
    return _to_the_end(interpolant, steps, high, lambda n: np.linspace(start, end, n))


def karras(
    interpolant: Interpolant, steps: int, *, rho: float = 7.0, sigma_min: float = 0.002, sigma_max: float = 80.0
) -> Grid:
    """Levels sigma = source_std beta / alpha by equal steps of sigma^(1/rho) (EDM, arXiv:2206.00364, eq. 5), as far as
    the path has them; then to t_max."""
    low, high = np.exp(-solvers.coefficients(interpolant, np.array([interpolant.t_max, interpolant.t_min])).log_snr)
    low, high = max(low, sigma_min / interpolant.source_std), min(high, sigma_max / interpolant.source_std)

    def levels(n: int) -> Float64[np.ndarray, " n"]:
        return -rho * np.log(np.linspace(high ** (1 / rho), low ** (1 / rho), n))

    last = solvers.times_of(interpolant, -np.log(np.array([low])))[0]
    return _to_the_end(interpolant, steps, last, levels)


def shifted(interpolant: Interpolant, steps: int, *, shift: float = 3.0) -> Grid:
    """u' = shift u / (1 + (shift - 1) u) of equally spaced u = 1 - t (Stable Diffusion 3, arXiv:2403.03206, eq. 23):
    above 1 more steps near the noise."""
    u = 1 - np.linspace(0, 1, steps + 1)
    u = shift * u / (1 + (shift - 1) * u)
    return interpolant.t_min + (interpolant.t_max - interpolant.t_min) * (1 - u)


def given(interpolant: Interpolant, steps: int, *, times: tuple[float | int, ...] = ()) -> Grid:
    """The times themselves. Raises UsageError unless there are steps + 1."""
    if len(times) != steps + 1:
        raise UsageError(f"grid given(times={times}) has {len(times)} times, and {steps} steps need {steps + 1}")
    return np.asarray(times, np.float64)


GRIDS = {f.__name__: f for f in (uniform, log_snr, karras, shifted, given)}


def make(grid: str, interpolant: Interpolant, steps: int) -> Grid:
    """The grid by name. Raises UsageError for an unknown one or option, less than one step, or times that do not rise
    within the path's."""
    name, chosen = lookup.parse_call("grid", grid)
    lookup.check_name("grid", name, GRIDS)
    if steps < 1:
        raise UsageError(f"{steps} steps: a sampler takes at least 1")
    chosen = lookup.checked(f"grid {name}", GRIDS[name], (), chosen)
    times = np.asarray(GRIDS[name](interpolant, steps, **chosen), np.float64)
    inside = interpolant.t_min - 1e-6 <= times[0] and times[-1] <= interpolant.t_max + 1e-6
    if not inside or not np.all(np.diff(times) > 0):
        shown = ", ".join(f"{t:.4g}" for t in times[:6]) + (", ..." if len(times) > 6 else "")
        raise UsageError(
            f"grid {grid} gives the times {shown}: they must rise within [{interpolant.t_min}, {interpolant.t_max}]"
        )
    return times


def _to_the_end(interpolant: Interpolant, steps: int, last: float, log_snrs: Callable[[int], np.ndarray]) -> Grid:
    """The times of a falling row of levels, and t_max after them where `last` lies before it."""
    ends_early = interpolant.t_max - last > 1e-6
    if ends_early and steps == 1:
        return np.concatenate([solvers.times_of(interpolant, log_snrs(2)[:1]), [interpolant.t_max]])
    times = solvers.times_of(interpolant, log_snrs(steps + (not ends_early)))
    return np.concatenate([times, [interpolant.t_max]]) if ends_early else times
