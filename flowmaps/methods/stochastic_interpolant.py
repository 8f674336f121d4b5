"""Stochastic interpolants (Albergo, Boffi, Vanden-Eijnden 2023, arXiv:2303.08797): any source and coupling, a latent.

    x_t = alpha x1 + beta x0 + gamma(t) z,  z ~ N(0, I)
    L = E |v(x_t) - (alpha' x1 + beta' x0)|^2  +  E |eta(x_t) - z|^2

Two heads of one network learn v and the denoiser eta; the velocity is b = v + gamma' eta, and the score -eta / gamma,
so that the ODE dx = b dt and each SDE dx = (b + w score) dt + sqrt(2 w) dW follow. With

    bridge    gamma = scale sqrt(t (1 - t)): with the entropic coupling of regularization 2 scale^2 the Schroedinger
              bridge (SB-CFM with its score, [SF]2M: arXiv:2302.00482, arXiv:2307.03672)
    sine      gamma = scale sin^2(pi t): encodes to noise and decodes (arXiv:2303.08797, table 8)
    constant  gamma = scale: I-CFM (arXiv:2302.00482)

Cost: 3F a row.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from flowmaps import rows, samplers, times
from flowmaps.interpolants import Ends, Interpolant
from flowmaps.methods import _terms
from flowmaps.rows import expand
from flowmaps.types import Array, Batch, Cond, Keys, Loss, Manyheaded, Method, Roles
from flowmaps.weightings import squared

Points = Float[Array, "b *d"]
Times = Float[Array, " b"]

NEAREST = 1e-3
"""To 0 and 1, of the times at which a bridge's slope is read: at the ends it is infinite."""


class Latent(NamedTuple):
    """gamma and its derivative, as functions of time [B] -> [B]."""

    value: Callable[[Times], Times]
    slope: Callable[[Times], Times]


def bridge(scale: float) -> Latent:
    """gamma = scale sqrt(t (1 - t)), its slope held NEAREST to the ends."""

    def slope(t: Times) -> Times:
        t = jnp.clip(t, NEAREST, 1 - NEAREST)
        return scale * (1 - 2 * t) / (2 * jnp.sqrt(t * (1 - t)))

    return Latent(lambda t: scale * jnp.sqrt(t * (1 - t)), slope)


def sine(scale: float) -> Latent:
    """gamma = scale sin^2(pi t)."""
    return Latent(lambda t: scale * jnp.sin(jnp.pi * t) ** 2, lambda t: scale * jnp.pi * jnp.sin(2 * jnp.pi * t))


def constant(scale: float) -> Latent:
    """gamma = scale."""
    return Latent(lambda t: jnp.full_like(t, scale), jnp.zeros_like)


class Model(NamedTuple):
    """The velocity b of a network with the heads v and eta; SDEs take their score from its own noise, the latent."""

    network: Manyheaded
    latent: Latent
    interpolant: Interpolant

    def __call__(self, x: Points, s: Times, t: Times, cond: Cond, *, dropout: Keys | None = None) -> Points:
        v, eta = self.heads(x, s, t, cond, dropout=dropout)
        return v + expand(self.latent.slope(s), x) * eta

    def heads(self, x: Points, s: Times, t: Times, cond: Cond, *, dropout: Keys | None = None) -> tuple[Points, Points]:
        """v and eta."""
        return self.network.heads(x, s, t, cond, dropout=dropout)

    def velocity_and_noise(self, x: Points, t: Times, cond: Cond) -> tuple[Points, Points]:
        """b and source_std E[z | x_t = x]."""
        v, eta = self.heads(x, t, t, cond)
        return v + expand(self.latent.slope(t), x) * eta, self.interpolant.source_std * eta

    def level(self, t: Times) -> Times:
        """The standard deviation of x_t's Gaussian part, in units of source_std."""
        return self.latent.value(t) / self.interpolant.source_std

    def ends(self, x: Points, t: Times, cond: Cond) -> Ends:
        """E[x0 | x_t = x] and E[x1 | x_t = x], of which v and x - gamma eta are the path's own combinations."""
        v, eta = self.heads(x, t, t, cond)
        return self.interpolant.ends_from_velocity(x - expand(self.latent.value(t), x) * eta, v, t)


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    law: tuple = ("uniform",),
    latent: Literal["bridge", "sine", "constant"] = "bridge",
    scale: float = 1.0,
    weights: tuple[float, float] = (1.0, 1.0),
    label_dropout: float = 0.0,
) -> Method:
    """law: of t, see times.on_path. scale: of gamma. weights: of the terms of v and eta. label_dropout: share of labels
    hidden, for guidance. Raises UsageError for an unknown law.
    """
    draw = times.on_path(interpolant, *law)
    gamma = {"bridge": bridge, "sine": sine, "constant": constant}[latent](scale)

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        t = draw(rows.fold(keys, 1))
        point, slope = _terms.path_point(interpolant, batch, t)
        z = rows.normal(rows.fold(keys, 3), point.shape[1:]).astype(point.dtype)
        x = point + expand(gamma.value(t), z) * z
        v, eta = roles.student.heads(x, t, t, cond, dropout=rows.fold(keys, 2))
        terms = {"velocity": squared(v - slope), "latent": squared(eta - z)}
        value = sum(weight * term for weight, term in zip(weights, terms.values(), strict=True))
        return Loss(value, {name: jnp.mean(term) for name, term in terms.items()})

    return Method(
        {"student": student_loss},
        samplers.make("diagonal", interpolant=interpolant),
        diagonal_only=True,
        heads=2,
        model=lambda network: Model(network, gamma, interpolant),
    )
