"""Guidance: transforms of a velocity."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from flowmaps.errors import UsageError
from flowmaps.rows import expand
from flowmaps.types import NULL_LABEL, Array, Cond, Keys, Velocity, evaluations


def without_labels(cond: Cond) -> Cond:
    """The same rows without their labels. Raises UsageError where they have none."""
    if "label" not in cond:
        raise UsageError("guidance needs labels, and these data have none: leave out its scale, omega and kappa")
    return {**cond, "label": jnp.full_like(cond["label"], NULL_LABEL)}


class ClassifierFree(NamedTuple):
    """v_null + w (v_label - v_null) (Ho and Salimans 2022, arXiv:2207.12598), w = `scale` where the start s lies in
    `interval` (Kynkaanniemi et al. 2024, arXiv:2404.07724) and 1 elsewhere. Both passes are one call of twice the rows.
    """

    velocity: Velocity
    scale: float
    interval: tuple[float, float] = (0.0, 1.0)

    @property
    def evaluations(self) -> int:
        """Network evaluations a call."""
        return 2 * evaluations(self.velocity)

    def __call__(
        self,
        x: Float[Array, "b *d"],
        s: Float[Array, " b"],
        t: Float[Array, " b"],
        cond: Cond,
        *,
        dropout: Keys | None = None,
    ) -> Float[Array, "b *d"]:
        unlabelled = without_labels(cond)
        both = {name: paired(c, unlabelled[name]) for name, c in cond.items()}
        keys = None if dropout is None else paired(dropout, dropout)
        out = self.velocity(*(paired(v, v) for v in (x, s, t)), both, dropout=keys)
        conditional, unconditional = jnp.moveaxis(out.reshape(-1, 2, *x.shape[1:]), 1, 0)
        acts = (self.interval[0] <= s) & (s <= self.interval[1])
        scale = expand(jnp.where(acts, self.scale, 1.0).astype(x.dtype), x)
        return unconditional + scale * (conditional - unconditional)


def paired(one: Float[Array, "b *d"] | Array, other: Float[Array, "b *d"] | Array) -> Array:
    """Rows of both in turn, so that a batch cut over devices is doubled on each for itself."""
    return jnp.stack([one, other], axis=1).reshape(-1, *one.shape[1:])


class Conditioned(NamedTuple):
    """A velocity that has learned guided ones, asked for `scale` in `interval`: one evaluation and no second pass."""

    velocity: Velocity
    scale: float
    interval: tuple[float, float] = (0.0, 1.0)

    def __call__(
        self,
        x: Float[Array, "b *d"],
        s: Float[Array, " b"],
        t: Float[Array, " b"],
        cond: Cond,
        *,
        dropout: Keys | None = None,
    ) -> Float[Array, "b *d"]:
        return self.velocity(x, s, t, with_guidance(cond, jnp.full_like(s, self.scale), self.interval), dropout=dropout)


def with_guidance(
    cond: Cond, scale: Float[Array, " b"], interval: Float[Array, "b 2"] | tuple[float, float] = (0.0, 1.0)
) -> Cond:
    """The condition that asks for guidance of each row's scale in its interval of times."""
    ends = jnp.broadcast_to(jnp.asarray(interval, scale.dtype), (*scale.shape, 2))
    return {**cond, "guidance": scale, "interval": ends}
