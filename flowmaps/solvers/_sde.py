"""The SDEs with the path's marginals (Song et al. 2021; Albergo et al. 2023, arXiv:2303.08797; SiT, arXiv:2401.08740):

    dx = (b_t + w(t) score) dt + sqrt(2 w(t)) dW    for any w >= 0,

w in units of the source's variance. w = beta^2 d/dt log(alpha / beta), "reverse", is half the squared diffusion of the
noising SDE, and the reverse SDE of score-based models. The score is -E[noise | x_t] / level, for the Gaussian part of
x_t: beta x0, or the latent of a model that has learned one (types.Noisy).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from flowmaps import lookup, solvers
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.rows import expand
from flowmaps.types import Cond, Grid, Keys, Noisy, Velocity, evaluations

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
    the drift, without noise; noise: as the others. Raises UsageError for an unknown name, or where w / level is not
    finite at a time at which it is read.
    """
    known = diffusions(interpolant)
    lookup.check_name("diffusion", diffusion, known)
    lookup.check_name("final step", final, FINALS)
    level = velocity.level if isinstance(velocity, Noisy) else interpolant.beta.value

    def w(t):
        return scale * known[diffusion](t)

    def weight(t):  # of the noise
        return w(t) / level(t)

    check(weight, diffusion, grid if final == "noise" and calls > 1 else grid[:-1])

    def drift(x, t):
        v, source = solvers.velocity_and_noise(velocity, interpolant, x, t, cond)
        return v - expand(weight(t), x) * source

    def noisy(x, s, t, number):
        increment = expand(jnp.sqrt(2 * w(s) * (t - s)), x) * solvers.noise(interpolant, keys, number, x)
        return advance(drift, x, s, t, increment), calls * evaluations(velocity)

    def last(x, s, t, number):
        if final == "mean":
            return x + expand(t - s, x) * drift(x, s), evaluations(velocity)
        return interpolant.point(*solvers.means(velocity, interpolant, x, s, cond), t), evaluations(velocity)

    if final == "noise":
        return solvers.march(noisy, x, grid)
    start = solvers.march(noisy, x, grid[:-1])
    return solvers.joined([start, solvers.march(last, start.x, grid[-2:])])


def check(weight: Callable[[solvers.Times], solvers.Times], diffusion: str, grid: Grid) -> None:
    """Raises UsageError where the weight of the noise in the drift is not finite at one of the times."""
    with jax.ensure_compile_time_eval():
        finite = np.isfinite(weight(jnp.asarray(grid, jnp.result_type(float))))
    if not finite.all():
        time = float(grid[~finite][0])
        raise UsageError(
            f"diffusion {diffusion!r} needs the score at time {time:.4g}, where it is infinite on this path: choose "
            "another, or a grid that stays away, for example sample.grid='uniform(first=0.001)'"
        )
