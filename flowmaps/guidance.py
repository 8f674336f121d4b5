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
        raise UsageError("guidance needs labels, and these data have none: leave out what is set of it")
    return {**cond, "label": jnp.full_like(cond["label"], NULL_LABEL)}


def plain(cond: Cond) -> Cond:
    """The condition without what it asks of guidance."""
    return {name: value for name, value in cond.items() if name not in ("guidance", "interval")}


def asked(cond: Cond, s: Float[Array, " b"], scale: float, interval: tuple[float, float]) -> Float[Array, " b"]:
    """The scale at time s of each row, 1 outside of its interval: as the condition asks, and otherwise as given."""
    low, high = jnp.moveaxis(cond["interval"], -1, 0) if "interval" in cond else interval
    acts = (low <= s) & (s <= high)
    return jnp.where(acts, cond.get("guidance", scale), 1.0).astype(s.dtype)


class ClassifierFree(NamedTuple):
    """v_null + w (v_label - v_null) (Ho and Salimans 2022, arXiv:2207.12598), w = `scale` where the start s lies in
    `interval` (Kynkaanniemi et al. 2024, arXiv:2404.07724) and 1 elsewhere, or of each row as its condition asks. Both
    passes are one call of twice the rows.
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
        scale = expand(asked(cond, s, self.scale, self.interval), x)
        cond = plain(cond)
        conditional, unconditional = under_both(self.velocity, x, s, t, cond, without_labels(cond), dropout=dropout)
        return unconditional + scale * (conditional - unconditional)


class Autoguided(NamedTuple):
    """v_weak + w (v - v_weak) of a model and a weaker one (Karras et al. 2024, arXiv:2406.02507), w = `scale` where the
    start s lies in `interval` and 1 elsewhere, or of each row as its condition asks."""

    velocity: Velocity
    weak: Velocity
    scale: float
    interval: tuple[float, float] = (0.0, 1.0)

    @property
    def evaluations(self) -> int:
        """Network evaluations a call."""
        return evaluations(self.velocity) + evaluations(self.weak)

    def __call__(
        self,
        x: Float[Array, "b *d"],
        s: Float[Array, " b"],
        t: Float[Array, " b"],
        cond: Cond,
        *,
        dropout: Keys | None = None,
    ) -> Float[Array, "b *d"]:
        scale = expand(asked(cond, s, self.scale, self.interval), x)
        strong, weak = (v(x, s, t, plain(cond), dropout=dropout) for v in (self.velocity, self.weak))
        return weak + scale * (strong - weak)


def under_both(
    velocity: Velocity,
    x: Float[Array, "b *d"],
    s: Float[Array, " b"],
    t: Float[Array, " b"],
    one: Cond,
    other: Cond,
    *,
    dropout: Keys | None = None,
) -> tuple[Float[Array, "b *d"], Float[Array, "b *d"]]:
    """v_{s,t}(x) under two conditions that say the same things, by one call of twice the rows."""
    both = {name: paired(c, other[name]) for name, c in one.items()}
    keys = None if dropout is None else paired(dropout, dropout)
    out = velocity(*(paired(v, v) for v in (x, s, t)), both, dropout=keys)
    first, second = jnp.moveaxis(out.reshape(-1, 2, *x.shape[1:]), 1, 0)
    return first, second


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
