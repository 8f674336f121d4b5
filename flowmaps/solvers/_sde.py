"""The SDEs with the path's marginals (Song et al. 2021; Albergo et al. 2023, arXiv:2303.08797; SiT, arXiv:2401.08740):

    dx = (b_t + w(t) score) dt + sqrt(2 w(t)) dW    for any w >= 0,

w in units of the source's variance. w = beta^2 d/dt log(alpha / beta), "reverse", is half the squared diffusion of the
noising SDE, and the reverse SDE of score-based models.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from flowmaps import lookup, solvers
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.rows import expand
from flowmaps.types import Cond, Grid, Keys, Velocity, evaluations

Drift = Callable[[solvers.Points, solvers.Times], solvers.Points]
Advance = Callable[[Drift, solvers.Points, solvers.Times, solvers.Times, solvers.Points], solvers.Points]
"""(drift, x at s, s, t, the step's increment of noise) -> x at t."""
Diffusion = Callable[[solvers.Times], solvers.Times]
FINALS = ("denoise", "mean", "noise")


def diffusions(interpolant: Interpolant) -> dict[str, Diffusion]:
    """w(t) by name; all of SiT's."""
    return {
        "constant": jnp.ones_like,
        "reverse": lambda t: interpolant.beta.value(t) ** 2 * interpolant.level_fall(t),
        "sigma": interpolant.beta.value,
        "linear": lambda t: 1 - t,
        "decreasing": lambda t: (jnp.cos(jnp.pi * t) + 1) ** 2 / 4,
        "rising_falling": lambda t: jnp.sin(jnp.pi * t) ** 2,
    }


def solve(
    advance: Advance,
    calls: int,
    velocity: Velocity,
    interpolant: Interpolant,
    x: solvers.Points,
    grid: Grid,
    keys: Keys,
    cond: Cond,
    *,
    diffusion: str,
    scale: float,
    final: str,
) -> solvers.Trajectory:
    """Steps of `advance`, each of `calls` evaluations, with scale * w; the last one as `final` says.

    denoise: to alpha E[x1 | x] + beta E[x0 | x], which is Tweedie's estimate where beta = 0; mean: Euler's step along
    the drift, without noise; noise: as the others. Raises UsageError for an unknown name, or where w / beta is not
    finite at a time at which it is read.
    """
    known = diffusions(interpolant)
    lookup.check_name("diffusion", diffusion, known)
    lookup.check_name("final step", final, FINALS)
    check(interpolant, known[diffusion], diffusion, grid if final == "noise" and calls > 1 else grid[:-1])

    def w(t):
        return scale * known[diffusion](t)

    def drift(x, t):
        v = velocity(x, t, t, cond)
        source = interpolant.ends_from_velocity(x, v, t).noise
        return v - expand(w(t) / interpolant.beta.value(t), x) * source

    def noisy(x, s, t, number):
        increment = expand(jnp.sqrt(2 * w(s) * (t - s)), x) * solvers.noise(interpolant, keys, number, x)
        return advance(drift, x, s, t, increment), calls * evaluations(velocity)

    def last(x, s, t, number):
        if final == "mean":
            return x + expand(t - s, x) * drift(x, s), evaluations(velocity)
        return interpolant.point(*solvers.ends(velocity, interpolant, x, s, cond), t), evaluations(velocity)

    if final == "noise":
        return solvers.march(noisy, x, grid)
    start = solvers.march(noisy, x, grid[:-1])
    return solvers.joined([start, solvers.march(last, start.x, grid[-2:])])


def check(interpolant: Interpolant, w: Diffusion, diffusion: str, grid: Grid) -> None:
    """Raises UsageError where w / beta, the weight of the score, is not finite at one of the times."""
    with jax.ensure_compile_time_eval():
        t = jnp.asarray(grid, jnp.result_type(float))
        weight = np.asarray(w(t) / interpolant.beta.value(t))
    if not np.isfinite(weight).all():
        time = float(grid[~np.isfinite(weight)][0])
        raise UsageError(
            f"diffusion {diffusion!r} needs the score at time {time:.4g}, where it is infinite on this path: choose "
            "another, or a grid that stays away, for example sample.grid='uniform(first=0.001)'"
        )
