"""Softmax attention whose every derivative exists, with the matrix of all scores in memory or without.

Both forms are plain operations. Fused kernels (cuDNN's, Pallas') bring a rule for the backward pass alone, and jax.jvp,
which half of the methods need, refuses them.
"""

from functools import partial
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Float

from flowmaps.types import Array

Queries = Float[Array, "b n h d"]
Keys = Float[Array, "b m h d"]
Form = Literal["auto", "xla", "blockwise"]
""" "xla": all scores at once; "blockwise": tile after tile; "auto": the first of these up to MOST_SCORES."""
MOST_SCORES = 1024**2
"""Of a head and an example. A matrix of them is then at most 16 times as large as queries of 64 channels, and the
cheaper way: of blocks a gradient has half as many products more."""
TILE = 128
"""Queries, and keys, of a block at most."""


def attend(query: Queries, key: Keys, value: Keys, form: Form = "auto") -> Queries:
    """Of each query the mean of the values, weighted by the softmax of its products with the keys over sqrt(d)."""
    if form == "auto":
        form = "xla" if query.shape[1] * key.shape[1] <= MOST_SCORES else "blockwise"
    return {"xla": plain, "blockwise": blockwise}[form](query, key, value)


def plain(query: Queries, key: Keys, value: Keys) -> Queries:
    """The formula. Products in the numbers' own precision, softmax in float32 or above."""
    scores = jnp.einsum("bqhd,bkhd->bhqk", query * query.shape[-1] ** -0.5, key)
    shares = nn.softmax(scores.astype(jnp.promote_types(scores.dtype, jnp.float32)))
    return jnp.einsum("bhqk,bkhd->bqhd", shares.astype(value.dtype), value)


class Sums(NamedTuple):
    """Of the keys so far, for each query."""

    top: Float[Array, "b h q 1"]
    """The largest score, relative to which the sums are."""
    weight: Float[Array, "b h q 1"]
    mixed: Float[Array, "b h q d"]
    """Values by their weights."""


def blockwise(query: Queries, key: Keys, value: Keys, tile: int = TILE) -> Queries:
    """The same from one block of scores at a time, `tile` queries by `tile` keys or fewer, in memory linear in their
    numbers (Rabe, Staats 2021, arXiv:2112.05682). Precision as in `plain`, sums in float32 or above.

    What the sums are relative to cancels, so that it may be stopped: derivatives of all orders stay exact, and the rest
    is linear in the sums, of which none is then kept for a backward pass. That computes each block anew.
    """
    exact = jnp.promote_types(value.dtype, jnp.float32)
    count, size = _cut(key.shape[1], tile)
    there = (jnp.arange(count * size) < key.shape[1]).reshape(count, 1, 1, 1, size)
    keys = (_tiles(key, tile), _tiles(value, tile), there)
    anew = partial(jax.checkpoint, prevent_cse=False)  # inside of a loop nothing is merged with what is computed anew

    @anew
    def rows(query: Float[Array, "b h q d"]) -> Float[Array, "b h q d"]:
        @anew
        def add(sums: Sums, keys: tuple[Array, Array, Array]) -> tuple[Sums, None]:
            key, value, there = keys
            scores = jnp.einsum("bhqd,bhkd->bhqk", query, key).astype(exact)
            scores = jnp.where(there, scores, -jnp.inf)
            top = jnp.maximum(sums.top, lax.stop_gradient(scores).max(axis=-1, keepdims=True))
            before, weights = jnp.exp(sums.top - top), jnp.exp(scores - top)
            mixed = jnp.einsum("bhqk,bhkd->bhqd", weights.astype(value.dtype), value).astype(exact)
            weight = weights.sum(axis=-1, keepdims=True)
            return Sums(top, before * sums.weight + weight, before * sums.mixed + mixed), None

        none = jnp.zeros((*query.shape[:-1], 1), exact)
        sums, _ = lax.scan(add, Sums(none - jnp.inf, none, jnp.zeros(query.shape, exact)), keys)
        return (sums.mixed / sums.weight).astype(value.dtype)

    mixed = jnp.moveaxis(lax.map(rows, _tiles(query * query.shape[-1] ** -0.5, tile)), 0, 2)
    b, h, *_, d = mixed.shape
    return jnp.swapaxes(mixed.reshape(b, h, -1, d)[:, :, : query.shape[1]], 1, 2)


def _tiles(x: Keys, tile: int) -> Float[Array, "count b h size d"]:
    """Of tokens, the last ones zeros where they do not fill it."""
    (b, n, h, d), (count, size) = x.shape, _cut(x.shape[1], tile)
    padded = jnp.pad(x, ((0, 0), (0, count * size - n), (0, 0), (0, 0)))
    return jnp.moveaxis(padded.reshape(b, count, size, h, d), (1, 3), (0, 2))


def _cut(n: int, tile: int) -> tuple[int, int]:
    """The number of tiles, of `tile` at most, and their equal size: each has one of the n tokens at least."""
    count = -(-n // tile)
    return count, -(-n // count)
