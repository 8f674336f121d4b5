"""Two data sets, one of which is the source: batches of x1 of the one beside x0 of the other, paired at random."""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int

from flowmaps.data import _random
from flowmaps.data._dataset import ENDLESS, Dataset, Source, fingerprint
from flowmaps.errors import UsageError

APART = 0x5EED
"""Joined to the seed of the source, whose draws must not be those of the data."""


@dataclass(frozen=True)
class Paired:
    """The rows of `target`, each with a random row of `source`."""

    target: Source
    source: Source

    def __len__(self) -> int:
        return len(self.target)

    def batch(
        self, indices: Int[np.ndarray, " n"], seed: int = 0, epoch: int | Int[np.ndarray, " n"] = 0
    ) -> dict[str, np.ndarray]:
        """As of any source, and "x0" float32 [n, *shape]."""
        return {**self.target.batch(indices, seed, epoch), "x0": draw(self.source, indices, seed, epoch)}


def draw(
    source: Source, indices: Int[np.ndarray, " n"], seed: int, epoch: int | Int[np.ndarray, " n"] = 0
) -> np.ndarray:
    """Rows [n, *shape] of `source`: of a law the draws with these indices, of a list any, with replacement."""
    return drawn(source, indices, seed, epoch)["x1"]


def drawn(
    source: Source, indices: Int[np.ndarray, " n"], seed: int, epoch: int | Int[np.ndarray, " n"] = 0
) -> dict[str, np.ndarray]:
    """Those rows with all that they bring."""
    seed ^= APART
    if len(source) != ENDLESS:
        chance = _random.uniforms(_random.keys(seed, epoch, indices), 1)[:, 0]
        indices = (chance * len(source)).astype(np.int64)
    return source.batch(indices, seed, epoch)


def as_stored(source: Source) -> Source:
    """The examples of a source without what training does to them: mirrored images, rows of a second data set."""
    source = source.target if isinstance(source, Paired) else source
    return replace(source, flip=False) if getattr(source, "flip", False) else source


def paired(target: Dataset, source: Dataset) -> Dataset:
    """The data set whose x1 are the target's and x0 the source's. Raises UsageError where their shapes differ."""
    if target.shape != source.shape:
        raise UsageError(f"data.source has examples of shape {source.shape}, and the data of {target.shape}")
    return target._replace(
        train=Paired(target.train, source.train),
        source=source.test or source.train,
        fingerprint=fingerprint(target.fingerprint, source.fingerprint),
    )
