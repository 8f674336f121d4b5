"""The variational bound of ancestral sampling on the likelihood of whole-numbered data (DDPM, Ho et al. 2020,
arXiv:2006.11239, eq. 5, on any path and grid t_0 < ... < t_K whose last time is clean):

    -log P(x1) <= KL(q(x_{t_0} | x1), p(x_{t_0}))
                  + sum_{k < K-1} E KL(q(x_{t_{k+1}} | x_{t_k}, x1), p(x_{t_{k+1}} | x_{t_k}))
                  - E log P(x1 | x_{t_{K-1}}),

q the path's own conditionals, p the chain of `ancestral` with either of its variances. Its last step, which samples
without noise, gives each level of the data the mass that a Gaussian has between its neighbours' midpoints.
"""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from flowmaps import lookup, rows, solvers
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.rows import flat_sum
from flowmaps.solvers import ancestral, ddim
from flowmaps.types import Array, Cond, Grid, Keys, Velocity

Points = Float[Array, "b *d"]
Row = Float[Array, " b"]


class Bound(NamedTuple):
    """The three terms, in nats a row."""

    prior: Row
    chain: Row
    decoder: Row


def bound(
    velocity: Velocity,
    interpolant: Interpolant,
    x: Points,
    grid: Grid,
    keys: Keys,
    cond: Cond,
    *,
    levels_per_unit: float | int,
    variance: Literal["small", "large"] = "large",
) -> Bound:
    """Of data x in [-1, 1] with `levels_per_unit` levels to the unit, by one draw of the states along the grid.

    variance: of ancestral's chain; "small", which has no last step, ends with the spread of the step before. The
    source is N(0, source_std^2 I), scaled as `Interpolant.start` does. Raises UsageError for an unknown variance, or
    less than two steps.
    """
    lookup.check_name("variance of ancestral", variance, ancestral.VARIANCES)
    if len(grid) < 3:
        raise UsageError(f"a bound of {len(grid) - 1} steps: it takes at least 2")
    size = x[0].size
    times = jnp.asarray(grid, jnp.result_type(float))
    std = interpolant.source_std

    def at(number: Array | int, time: Array) -> tuple[Points, Points, solvers.Times]:
        t = jnp.full(x.shape[:1], time)
        noise = solvers.noise(interpolant, keys, number, x)
        return noise, interpolant.point(noise, x, t), t

    def divergence(total: Row, interval: tuple[Array, Array, Array]) -> tuple[Row, None]:
        number, start, end = interval
        noise, state, s = at(number, start)
        t = jnp.full_like(s, end)
        source, data = solvers.ends(velocity, interpolant, state, s, cond)
        exact, chosen = ddim.posterior_std(interpolant, s, t), ancestral.VARIANCES[variance](interpolant, s, t)
        kept = jnp.sqrt(interpolant.beta.value(t) ** 2 - exact**2)
        shift = rows.expand(interpolant.alpha.value(t), x) * (data - x) + rows.expand(kept, x) * (source - noise)
        spreads = size * (jnp.log(chosen / exact) + (exact / chosen) ** 2 / 2 - 1 / 2)
        return total + spreads + flat_sum(shift**2) / (2 * (chosen * std) ** 2), None

    inner = jnp.arange(len(grid) - 2), times[:-2], times[1:-1]
    chain = jax.lax.scan(divergence, jnp.zeros(x.shape[0], x.dtype), inner)[0]

    _, state, s = at(len(grid) - 2, times[-2])
    mean = solvers.ends(velocity, interpolant, state, s, cond).data
    last = (s, jnp.full_like(s, times[-1])) if variance == "large" else (jnp.full_like(s, times[-3]), s)
    spread = std * ancestral.VARIANCES[variance](interpolant, *last)
    decoder = -flat_sum(log_mass(x, mean, rows.expand(spread, x), 0.5 / levels_per_unit))

    first = jnp.full(x.shape[:1], times[0])
    share, width = interpolant.alpha.value(first), interpolant.beta.value(first) * std
    return Bound(flat_sum((rows.expand(share / width, x) * x) ** 2) / 2, chain, decoder)


def log_mass(x: Points, mean: Points, std: Float[Array, "b *ones"], half: float) -> Points:
    """log of the mass of N(mean, std^2) within `half` of x; the levels -1 and 1 have all that lies beyond them."""
    from jax.scipy.special import log_ndtr

    upper = jnp.where(x > 1 - half, jnp.inf, (x + half - mean) / std)
    lower = jnp.where(x < -1 + half, -jnp.inf, (x - half - mean) / std)
    # On the right of the mean by the mirrored interval, whose two masses do not cancel.
    flip = lower > 0
    upper, lower = jnp.where(flip, -lower, upper), jnp.where(flip, -upper, lower)
    log_upper, log_lower = log_ndtr(upper), log_ndtr(lower)
    return log_upper + jnp.log1p(-jnp.exp(log_lower - log_upper))
