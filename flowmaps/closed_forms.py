"""Laws of data whose velocity, denoiser and flow map are known: what every method is proven against.

The source is N(0, interpolant.source_std^2 I). Everything is smooth in x, s and t, so that jvp and grad pass.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from flowmaps import rows
from flowmaps.interpolants import Ends, Interpolant
from flowmaps.rows import expand
from flowmaps.types import Array, Cond, Keys, Velocity

Points = Float[Array, "b d"]
Times = Float[Array, " b"]


class Oracle(NamedTuple):
    """A law of data with everything that a network could learn about it."""

    sample: Callable[[Keys], Points]
    """x1, one a key."""
    ends: Callable[[Points, Times], Ends]
    """E[x0 | x_t = x] and E[x1 | x_t = x]."""
    velocity: Callable[[Points, Times], Points]
    """b_t(x)."""
    average_velocity: Velocity
    """v_{s,t}(x) of the exact flow map."""


def gaussian(mean: Float[Array, " d"], covariance: Float[Array, "d d"], interpolant: Interpolant) -> Oracle:
    """Data N(mean, covariance), the covariance possibly singular.

    In the covariance's eigenbasis, with eigenvalue l: q(t)^2 = alpha^2 l + beta^2 source_std^2 and
    X_{s,t}(x) = alpha(t) m + (q(t) / q(s)) (x - alpha(s) m).
    """
    eigenvalues, basis = jnp.linalg.eigh(covariance)
    alpha, beta = interpolant.alpha, interpolant.beta
    source_variance = interpolant.source_std**2

    def variance(t: Times) -> Points:  # q^2, by eigenvalue
        a, b = alpha.value(t)[:, None], beta.value(t)[:, None]
        return a**2 * eigenvalues[None] + b**2 * source_variance

    def variance_difference(s: Times, t: Times) -> Points:  # (q(t)^2 - q(s)^2) / (t - s)
        a = alpha.difference(s, t) * (alpha.value(s) + alpha.value(t))
        b = beta.difference(s, t) * (beta.value(s) + beta.value(t))
        return a[:, None] * eigenvalues[None] + b[:, None] * source_variance

    def centred(x: Points, t: Times) -> Points:  # in the eigenbasis
        return (x - expand(alpha.value(t), x) * mean[None]) @ basis

    def sample(keys: Keys) -> Points:
        return mean[None] + rows.normal(keys, mean.shape) * jnp.sqrt(eigenvalues)[None] @ basis.T

    def ends(x: Points, t: Times) -> Ends:
        whitened = centred(x, t) / variance(t)
        data = mean[None] + expand(alpha.value(t), x) * (eigenvalues[None] * whitened) @ basis.T
        return Ends(expand(beta.value(t), x) * source_variance * whitened @ basis.T, data)

    def average_velocity(x: Points, s: Times, t: Times, cond: Cond, *, dropout: Keys | None = None) -> Points:
        width_s, width_t = jnp.sqrt(variance(s)), jnp.sqrt(variance(t))
        growth = variance_difference(s, t) / (width_s + width_t) / width_s
        return expand(alpha.difference(s, t), x) * mean[None] + (growth * centred(x, s)) @ basis.T

    def velocity(x: Points, t: Times) -> Points:
        return interpolant.velocity(*ends(x, t), t)

    return Oracle(sample, ends, velocity, average_velocity)


def mixture(
    weights: Float[Array, " k"],
    means: Float[Array, "k d"],
    covariances: Float[Array, "k d d"],
    interpolant: Interpolant,
    steps: int = 64,
) -> Oracle:
    """Data of a Gaussian mixture. The flow map is `steps` steps of classical Runge-Kutta (order 4) over [s, t].

    The integral is taken over u = (time - s) / (t - s), so that v_{s,t} is the mean of the stages and nothing is
    divided by t - s.
    """
    parts = [gaussian(m, c, interpolant) for m, c in zip(means, covariances, strict=True)]
    eigenvalues = jnp.stack([jnp.linalg.eigh(c)[0] for c in covariances])
    bases = jnp.stack([jnp.linalg.eigh(c)[1] for c in covariances])

    def responsibilities(x: Points, t: Times) -> Float[Array, "b k"]:
        a, b = interpolant.alpha.value(t), interpolant.beta.value(t)
        variances = a[:, None, None] ** 2 * eigenvalues[None] + (b[:, None, None] * interpolant.source_std) ** 2
        centred = jnp.einsum("bkd,kde->bke", x[:, None] - a[:, None, None] * means[None], bases)
        log_density = -0.5 * jnp.sum(centred**2 / variances + jnp.log(variances), axis=-1)
        return jax.nn.softmax(jnp.log(weights)[None] + log_density, axis=-1)

    def sample(keys: Keys) -> Points:
        pick = jax.vmap(lambda key: jax.random.categorical(key, jnp.log(weights)))(rows.fold(keys, 0))
        draws = jnp.stack([part.sample(rows.fold(keys, 1)) for part in parts], axis=1)
        return jnp.take_along_axis(draws, pick[:, None, None], axis=1)[:, 0]

    def ends(x: Points, t: Times) -> Ends:
        share = responsibilities(x, t)
        each = [part.ends(x, t) for part in parts]
        return Ends(*(jnp.einsum("bk,kbd->bd", share, jnp.stack(e)) for e in zip(*each, strict=True)))

    def velocity(x: Points, t: Times) -> Points:
        return interpolant.velocity(*ends(x, t), t)

    def average_velocity(x: Points, s: Times, t: Times, cond: Cond, *, dropout: Keys | None = None) -> Points:
        span = expand(t - s, x)
        h = 1 / steps
        nodes, shares = jnp.array([0, 0.5, 0.5, 1], x.dtype), jnp.array([1, 2, 2, 1], x.dtype) / 6

        def step(average: Points, i: Array) -> tuple[Points, None]:
            def stage(so_far: tuple[Points, Points], at: tuple[Array, Array]) -> tuple[tuple[Points, Points], None]:
                slope, total = so_far
                node, share = at
                moved = average + node * h * slope
                slope = velocity(x + span * moved, s + (i + node) * h * (t - s))
                return (slope, total + share * slope), None

            nothing = jnp.zeros_like(x), jnp.zeros_like(x)
            return average + h * jax.lax.scan(stage, nothing, (nodes, shares))[0][1], None

        return jax.lax.scan(step, jnp.zeros_like(x), jnp.arange(steps))[0]

    return Oracle(sample, ends, velocity, average_velocity)
