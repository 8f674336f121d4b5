"""Images as features, made on all devices: whatever the number of devices and processes, each reads its own rows."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Int, UInt8

from flowmaps import data, sharding
from flowmaps.data import Source
from flowmaps.metrics.inception import Features
from flowmaps.metrics.summary import Summary, summarise

BLOCK = 64
"""Images that a device looks at together."""
SIDE_BY_SIDE = 8
"""Images that a thread reads."""

Read = Callable[[Int[np.ndarray, " n"]], UInt8[np.ndarray, "n h w c"]]
"""Images by their numbers."""
Look = Callable[[Read, int], Iterator[Features]]
"""(read, count) -> the features of the images 0, ..., count - 1 in blocks, in float32 on the host."""


def make(network: Callable[[Mapping, jax.Array], Features], variables: Mapping, mesh: Mesh) -> Look:
    """What looks at images through a network with these variables.

    A process reads those of a block's images that its devices look at, and gets the features of all of them.
    """
    cut, copied = sharding.rows(mesh), sharding.replicated(mesh)
    placed = jax.device_put(variables, copied)
    features = jax.jit(network, in_shardings=(copied, cut), out_shardings=copied)

    def look(read: Read, count: int) -> Iterator[Features]:
        shape = read(np.zeros(1, np.int64)).shape[1:]
        size = min(BLOCK, -(-count // mesh.size)) * mesh.size
        for first in range(0, count, size):
            numbers = np.minimum(np.arange(first, first + size), count - 1)  # a last block repeats the last image
            images = jax.make_array_from_callback((size, *shape), cut, lambda rows, n=numbers: read(n[rows[0]]))
            yield Features(*(np.asarray(x)[: count - first] for x in features(placed, images)))

    return look


def of_source(look: Look, source: Source, count: int) -> Summary:
    """Of `count` images of a source in a fixed random order, as they are stored: without flips."""
    source = data.as_stored(source)
    order = np.random.default_rng(0).permutation(len(source))

    def part(numbers: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n h w c"]:
        return data.to_uint8(source.batch(order[numbers])["x1"])

    with ThreadPoolExecutor() as pool:  # decoding is what takes time

        def read(numbers: Int[np.ndarray, " n"]) -> UInt8[np.ndarray, "n h w c"]:
            parts = (numbers[first : first + SIDE_BY_SIDE] for first in range(0, len(numbers), SIDE_BY_SIDE))
            return np.concatenate(list(pool.map(part, parts)))

        return summarise(look(read, count), count)


def of_samples(look: Look, count: int, batches: Iterable[Float[np.ndarray, "_ h w c"]]) -> Summary:
    """Of `count` samples in [-1, 1], which come in batches and are made whole numbers as in files of images; those
    that are not finite have features that are not."""
    return summarise((block for x in batches for block in _of_batch(look, x)), count)


def _of_batch(look: Look, x: Float[np.ndarray, "n h w c"]) -> Iterator[Features]:
    images, broken, first = data.to_uint8(x), ~np.isfinite(x).all(axis=(1, 2, 3)), 0
    for block in look(images.__getitem__, len(images)):
        rows = broken[first : first + len(block.pool), None]
        yield Features(*(np.where(rows, np.nan, features) for features in block))
        first += len(rows)
