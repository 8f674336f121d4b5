"""Distances between two sets in blocks of rows, so that memory stays bounded."""

from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist

BLOCK_ENTRIES = 2**22
"""Entries of one block: 32 MiB."""
WIDE = 256
"""Numbers of a point from which on distances are computed by inner products: of 2,048 many times as fast."""


def row_blocks(rows: int, columns: int) -> Iterator[slice]:
    """Slices that cut a [rows, columns] matrix into blocks of at most BLOCK_ENTRIES entries (at least one row)."""
    step = max(1, BLOCK_ENTRIES // max(1, columns))
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))


def squared_distances(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]
) -> Iterator[tuple[slice, Float[np.ndarray, "_ m"]]]:
    """(rows of x, their squared Euclidean distances to all of y)."""
    for rows in row_blocks(len(x), len(y)):
        yield rows, between(x[rows], y)


def between(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    """Squared Euclidean distances: exactly zero between equal points that are not wide, and of wide ones zero to
    rounding, 1e-13 of their squared lengths."""
    if x.shape[1] < WIDE:
        return cdist(x, y, "sqeuclidean")
    lengths = [np.einsum("nd,nd->n", z, z) for z in (x, y)]
    return np.maximum(lengths[0][:, None] + lengths[1] - 2 * x @ y.T, 0)


def per_row(
    x: Float[np.ndarray, "n d"],
    y: Float[np.ndarray, "m d"],
    reduce: Callable[[Float[np.ndarray, "_ m"]], Float[np.ndarray, " _"]],
) -> Float[np.ndarray, " n"]:
    """`reduce` of each row of the matrix of squared distances."""
    return np.concatenate([reduce(block) for _, block in squared_distances(x, y)])


def nearest(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> Float[np.ndarray, " n"]:
    """Squared distance of each x to the nearest y."""
    return per_row(x, y, lambda block: block.min(axis=1))


def neighbour_radius(x: Float[np.ndarray, "n d"], k: int) -> Float[np.ndarray, " n"]:
    """Squared distance of each x to its k-th nearest other point of x; k < n."""
    return per_row(x, x, lambda block: np.partition(block, k, axis=1)[:, k])
