"""One step of the probability flow from a time s to a time u of each row: what distillation asks of a teacher.

The solvers of this package march all rows along one grid that is known before the program runs; here times are drawn.
"""

from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Float

from flowmaps import rows
from flowmaps.interpolants import Interpolant
from flowmaps.rows import expand
from flowmaps.solvers.ddim import posterior_std
from flowmaps.types import Array, Cond, Keys, Velocity

Points = Float[Array, "b *d"]
Times = Float[Array, " b"]
Step = Callable[[Velocity, Interpolant, Points, Times, Times, Cond], Points]
"""(velocity, interpolant, x at s, s, u, cond) -> x at u, with the velocity's diagonal."""


def ddim(velocity: Velocity, interpolant: Interpolant, x: Points, s: Times, u: Times, cond: Cond) -> Points:
    """The ends of s held until u: Euler's step in EDM's coordinates x / alpha and sigma. One evaluation."""
    ends = interpolant.ends_from_velocity(x, velocity(x, s, s, cond), s)
    return x + expand(u - s, x) * interpolant.chord(*ends, s, u)


def heun(velocity: Velocity, interpolant: Interpolant, x: Points, s: Times, u: Times, cond: Cond) -> Points:
    """Heun's step in EDM's coordinates (arXiv:2206.00364, algorithm 1): the mean of the two ends' noise. Two
    evaluations. `ddim`, which is Euler's step there, where u has no noise, or s no data and the step no length."""
    ends = interpolant.ends_from_velocity(x, velocity(x, s, s, cond), s)
    euler = x + expand(u - s, x) * interpolant.chord(*ends, s, u)
    second = interpolant.ends_from_velocity(euler, velocity(euler, u, u, cond), u).noise
    a, b, a_u, b_u = (c.value(t) for t in (s, u) for c in (interpolant.alpha, interpolant.beta))
    twice = (a > 0) & (b_u > 0)
    length = jnp.where(twice, b_u - a_u * b / jnp.where(a > 0, a, 1.0), 0.0)  # alpha(u) times sigma's fall
    change = jnp.where(expand(length, x) == 0, 0.0, second - ends.noise)
    return euler + expand(length, x) * change / 2


def ancestral(
    velocity: Velocity,
    interpolant: Interpolant,
    x: Points,
    s: Times,
    u: Times,
    cond: Cond,
    keys: Keys,
) -> Points:
    """DDPM's ancestral sampling (arXiv:2006.11239, algorithm 2) with the posterior's variance: the one step that draws.
    One evaluation."""
    noise, data = interpolant.ends_from_velocity(x, velocity(x, s, s, cond), s)
    spread = posterior_std(interpolant, s, u)
    kept = jnp.sqrt(interpolant.beta.value(u) ** 2 - spread**2)
    fresh = interpolant.source_std * rows.normal(keys, x.shape[1:])
    return expand(interpolant.alpha.value(u), x) * data + expand(kept, x) * noise + expand(spread, x) * fresh


STEPS = {"ddim": ddim, "heun": heun}
