"""The loader: an endless iterator of batches that any number of processes shares and that resumes anywhere."""

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Int

from flowmaps.data import _random
from flowmaps.data._dataset import ENDLESS, Source
from flowmaps.errors import UsageError

THREADS = 16
"""That decode ahead where examples are read from disk; as many batches wait in memory."""


class Loader(Iterator):
    """Batches, such as local ones {"x1": float32 [b, *shape], "label": int32 [b]}; `position` were given so far."""

    def __init__(self, batches: Iterator[dict[str, Any]], position: int):
        self._batches = batches
        self.position = position

    def __next__(self) -> dict[str, Any]:
        batch = next(self._batches)
        self.position += 1
        return batch


def loader(
    source: Source,
    *,
    batch_size: int,
    seed: int,
    process_index: int = 0,
    process_count: int = 1,
    position: int = 0,
) -> Loader:
    """Batches of `source` from the global batch number `position` on.

    Each epoch goes through a permutation of the examples drawn from (seed, epoch), and a batch may run from one
    epoch into the next: every example comes once an epoch. Process p of P gets rows [p b, (p + 1) b) of each
    global batch, b = batch_size / P. So neither a restart, nor another number of processes, changes the stream.
    Raises UsageError where the processes cannot share a batch equally.
    """
    import grain

    if not 0 <= process_index < process_count or batch_size < 1 or batch_size % process_count:
        raise UsageError(
            f"batch size {batch_size} cannot be shared equally by {process_count} processes "
            f"(process index {process_index}): make it a multiple of {process_count}"
        )
    batches = grain.MapDataset.source(_Batches(source, batch_size, seed, process_index, process_count))
    options = grain.ReadOptions(num_threads=THREADS, prefetch_buffer_size=THREADS)
    iterator = iter(batches.to_iter_dataset(options))
    iterator.set_state({"next_index": position})
    return Loader(iterator, position)


def ahead(batches: Loader, put: Callable[[dict[str, np.ndarray]], dict[str, Any]]) -> Loader:
    """The batches after `put`, which brings them to the devices, always one ahead: the next batch is on its way before
    this one is used. The position counts those that were given, and not what waits."""

    def given() -> Iterator[dict[str, Any]]:
        waiting = put(next(batches))
        for local in batches:
            coming = put(local)
            yield waiting
            waiting = coming

    return Loader(given(), batches.position)


@dataclass(frozen=True)
class _Batches:
    """One process's part of each global batch, by the batch's number: what grain reads."""

    source: Source
    batch_size: int
    seed: int
    process_index: int
    process_count: int

    def __len__(self) -> int:
        return ENDLESS // self.batch_size

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        local = self.batch_size // self.process_count
        first = number * self.batch_size + self.process_index * local
        indices, epochs = _examples(np.arange(first, first + local), len(self.source), self.seed)
        return self.source.batch(indices, self.seed, epochs)


def _examples(rows: Int[np.ndarray, " n"], size: int, seed: int) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The example and the epoch of each row of the endless stream over `size` examples."""
    epochs, places = np.divmod(rows, size)
    if size == ENDLESS:
        return rows, epochs
    indices = np.empty_like(rows)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        indices[here] = _order(size, seed, int(epoch))[places[here]]
    return indices, epochs


@functools.lru_cache(maxsize=4)
def _order(size: int, seed: int, epoch: int) -> np.ndarray:
    return _random.permutation(size, seed, epoch)
