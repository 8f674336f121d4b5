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
Step = Callable[[Velocity, Interpolant, Points, Times, Times, Cond, Keys | None], Points]
"""(velocity, interpolant, x at s, s, u, cond, dropout) -> x at u, with the velocity's diagonal."""


def ddim(
    velocity: Velocity, interpolant: Interpolant, x: Points, s: Times, u: Times, cond: Cond, dropout: Keys | None = None
) -> Points:
    """The ends of s held until u: Euler's step in EDM's coordinates x / alpha and sigma. One evaluation."""
    ends = interpolant.ends_from_velocity(x, velocity(x, s, s, cond, dropout=dropout), s)
    return x + expand(u - s, x) * interpolant.chord(*ends, s, u)


def heun(
    velocity: Velocity, interpolant: Interpolant, x: Points, s: Times, u: Times, cond: Cond, dropout: Keys | None = None
) -> Points:
    """Heun's step in EDM's coordinates (arXiv:2206.00364, algorithm 1): the mean of the two ends' noise. Two
    evaluations; singular where alpha = 0, and Euler's step where u has no noise."""

    def noise(x: Points, t: Times) -> Points:
        return interpolant.ends_from_velocity(x, velocity(x, t, t, cond, dropout=dropout), t).noise

    a, b = (expand(c.value(s), x) for c in (interpolant.alpha, interpolant.beta))
    a_u, b_u = (expand(c.value(u), x) for c in (interpolant.alpha, interpolant.beta))
    first = noise(x, s)
    euler = a_u * (x / a + (b_u / a_u - b / a) * first)
    second = jnp.where(b_u > 0, noise(euler, u), first)
    return a_u * (x / a + (b_u / a_u - b / a) * (first + second) / 2)


def ancestral(
    velocity: Velocity,
    interpolant: Interpolant,
    x: Points,
    s: Times,
    u: Times,
    cond: Cond,
    keys: Keys,
    dropout: Keys | None = None,
) -> Points:
    """DDPM's ancestral sampling (arXiv:2006.11239, algorithm 2) with the posterior's variance: the one step that draws.
    One evaluation."""
    noise, data = interpolant.ends_from_velocity(x, velocity(x, s, s, cond, dropout=dropout), s)
    spread = posterior_std(interpolant, s, u)
    kept = jnp.sqrt(interpolant.beta.value(u) ** 2 - spread**2)
    fresh = interpolant.source_std * rows.normal(keys, x.shape[1:])
    return expand(interpolant.alpha.value(u), x) * data + expand(kept, x) * noise + expand(spread, x) * fresh


STEPS = {"ddim": ddim, "heun": heun}
