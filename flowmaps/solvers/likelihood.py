"""Likelihood and latents by the probability-flow ODE (arXiv:1806.07366; Song et al. 2021, arXiv:2011.13456):

    log p_1(x_1) = log p_0(x_0) - int div b_t(x_t) dt    along dx/dt = b_t(x),

both integrated together by diffrax's adaptive Dormand-Prince method, each row with steps of its own.
"""

import math
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from flowmaps import lookup, rows, solvers
from flowmaps.identities import directional_derivative, divergence
from flowmaps.interpolants import Interpolant
from flowmaps.rows import flat_sum
from flowmaps.solvers import dopri5
from flowmaps.types import Array, Cond, Keys, Velocity, evaluations

Points = Float[Array, "b *d"]
TRACES = ("exact", "hutchinson")
PROBES = ("rademacher", "gaussian")


class Likelihood(NamedTuple):
    """What the ODE from data to source tells of each row."""

    log_density: Float[Array, " b"]
    """In nats, with respect to the coordinates of x."""
    latent: Points
    """The state at t_min, to which x was encoded."""
    nfe: Int[Array, ""]
    """Evaluations of the velocity, derivatives not counted apart; solvers.GAVE_UP where a tolerance was not reached."""


def log_likelihood(
    velocity: Velocity,
    interpolant: Interpolant,
    x: Points,
    keys: Keys,
    cond: Cond,
    *,
    trace: Literal["exact", "hutchinson"] = "exact",
    probe: Literal["rademacher", "gaussian"] = "rademacher",
    rtol: float = 1e-5,
    atol: float = 1e-5,
    last: float | None = None,
    max_steps: int = 4096,
) -> Likelihood:
    """log p(x) of data x at time `last`, by default t_max, for a Gaussian source.

    trace: exact takes as many forward-mode passes as x has numbers; hutchinson one, along a probe that is drawn once a
    row and kept along the way (unbiased for log p; of no variance where the Jacobian is diagonal and the probe +-1).
    The source's share of data at t_min, where alpha is not 0, is left out. Raises UsageError for unknown names.
    """
    lookup.check_name("trace", trace, TRACES)
    lookup.check_name("probe", probe, PROBES)
    end = interpolant.t_max if last is None else last

    def one(x, key, cond):
        direction = draw_probe(probe, key[None], x[None])

        def slope(t, state, _):
            def field(x):
                return velocity(x, t[None], t[None], jax.tree.map(lambda c: c[None], cond))

            x = state[0][None]
            if trace == "hutchinson":
                v, change = directional_derivative(field, (x,), (direction,))
                return v[0], flat_sum(direction * change)[0]
            return field(x)[0], divergence(field, x)[0]

        start = x, jnp.zeros((), x.dtype)
        return dopri5.integrate(slope, start, end, interpolant.t_min, rtol=rtol, atol=atol, max_steps=max_steps)

    (latent, negative), steps, reached = jax.vmap(one)(x, keys, cond)
    nfe = (1 + dopri5.STAGES * steps.max()) * evaluations(velocity)
    density = source_log_density(interpolant, latent) + negative
    return Likelihood(density, latent, jnp.where(reached.all(), nfe, solvers.GAVE_UP))


def source_log_density(interpolant: Interpolant, x: Points) -> Float[Array, " b"]:
    """Of N(0, (beta(t_min) source_std)^2 I)."""
    std = interpolant.beta.value(jnp.asarray(interpolant.t_min, x.dtype)) * interpolant.source_std
    size = math.prod(x.shape[1:])
    return -flat_sum((x / std) ** 2) / 2 - size * (jnp.log(std) + math.log(2 * math.pi) / 2)


def draw_probe(probe: str, keys: Keys, x: Points) -> Points:
    """A direction of unit covariance a row."""
    normal = rows.normal(keys, x.shape[1:]).astype(x.dtype)
    return jnp.where(normal < 0, -1.0, 1.0).astype(x.dtype) if probe == "rademacher" else normal


def bits_per_dimension(
    log_density: Float[Array, " b"], size: int, *, levels_per_unit: float | int
) -> Float[Array, " b"]:
    """-log2 of the probability of a whole-numbered example, a dimension, from the density of its uniform dequantisation
    in coordinates that have `levels_per_unit` levels to the unit: 127.5 or 128 for bytes in [-1, 1], 256 in [0, 1]."""
    return -log_density / (size * math.log(2)) + math.log2(levels_per_unit)
