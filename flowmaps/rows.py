"""Rows of a batch: their random keys, how they are dealt to the terms of a loss, and per-row arithmetic.

Randomness belongs to rows and never to batches: a row's key is fold_in(fold_in(key, step), global row), so that
cutting a batch over devices, processes or accumulation parts changes nothing.
"""

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import partial
from itertools import accumulate
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Float, Key

from flowmaps.errors import UsageError
from flowmaps.types import Array, Batch, Cond, Keys

Tree = TypeVar("Tree")


def keys(key: Key[Array, ""], step: Array | int, n: int, first: int = 0) -> Keys:
    """One key a row, for the global rows first, ..., first + n - 1 of a step."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.fold_in(key, step), first + jnp.arange(n))


def fold(keys: Keys, number: Array | int) -> Keys:
    """The keys of an independent stream: `number`, one for all rows or one a row, tells a row's consumers apart."""
    return jax.vmap(jax.random.fold_in, (0, 0 if jnp.ndim(number) else None))(keys, number)


def condition(batch: Batch) -> Cond:
    """The labels of a batch, where it has any."""
    return {"label": batch["label"]} if "label" in batch else {}


def normal(keys: Keys, shape: Sequence[int]) -> Float[Array, "b *d"]:
    """Standard normal rows of the given shape, one from each key."""
    return jax.vmap(lambda key: jax.random.normal(key, tuple(shape)))(keys)


def uniform(keys: Keys) -> Float[Array, " b"]:
    """Uniform numbers on [0, 1), one from each key."""
    return jax.vmap(jax.random.uniform)(keys)


def expand(t: Float[Array, " b"], x: Float[Array, "b *d"]) -> Float[Array, "b *ones"]:
    """A number a row, shaped to broadcast against x."""
    return t.reshape(t.shape + (1,) * (x.ndim - 1))


def flat_sum(x: Float[Array, "b *d"]) -> Float[Array, " b"]:
    """The sum of each row over all its dimensions."""
    return x.sum(axis=tuple(range(1, x.ndim)))


def flat_mean(x: Float[Array, "b *d"]) -> Float[Array, " b"]:
    """The mean of each row over all its dimensions."""
    return x.mean(axis=tuple(range(1, x.ndim)))


def groups(rows: int, shares: Sequence[float]) -> tuple[int, ...]:
    """How many rows of each group of consecutive rows go to each term, for a batch of `rows` rows.

    Raises:
      UsageError: a share is not above 0, they do not add up to 1, or the batch is not a multiple of a group.
    """
    parts = [Fraction(share).limit_denominator(1000) for share in shares]
    group = math.lcm(*(p.denominator for p in parts))
    listed = ", ".join(map(str, parts))
    if sum(parts) != 1 or min(parts) <= 0:
        raise UsageError(f"a batch is dealt to its terms in shares {listed}: each must be above 0 and their sum 1")
    if rows % group:
        raise UsageError(
            f"a batch of {rows} rows cannot be dealt to its terms in shares {listed}: that leaves a term without "
            f"whole rows; use a multiple of {group} rows (on every device), or other shares"
        )
    return tuple(int(p * group) for p in parts)


def split(tree: Tree, shares: Sequence[float]) -> tuple[Tree, ...]:
    """Deals the rows of every array in `tree` to terms, by static sizes.

    Rows are dealt inside groups of consecutive rows (for 3/4 and 1/4: three to the first term, one to the second),
    so that a batch cut over devices is dealt on each device for itself, without communication. Raises as `groups`.
    """
    sizes = groups(jax.tree.leaves(tree)[0].shape[0], shares)
    ends = list(accumulate(sizes))

    def deal(x: Array, start: int, end: int) -> Array:
        grouped = x.reshape(-1, ends[-1], *x.shape[1:])
        return grouped[:, start:end].reshape(-1, *x.shape[1:])

    starts = [0, *ends[:-1]]
    return tuple(jax.tree.map(partial(deal, start=a, end=b), tree) for a, b in zip(starts, ends, strict=True))


def join(parts: Sequence[Array], shares: Sequence[float]) -> Array:
    """The inverse of `split` for one array: rows back in the batch's order."""
    sizes = groups(sum(part.shape[0] for part in parts), shares)
    grouped = [p.reshape(-1, size, *p.shape[1:]) for p, size in zip(parts, sizes, strict=True)]
    joined = jnp.concatenate(grouped, axis=1)
    return joined.reshape(-1, *joined.shape[2:])
