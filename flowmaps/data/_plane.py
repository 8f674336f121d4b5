"""Laws on the plane, as endless sources of exact samples."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64, Int

from flowmaps.data import _random
from flowmaps.data._dataset import ENDLESS, Dataset, Modes, fingerprint
from flowmaps.types import NULL_LABEL

Law = Callable[[Float64[np.ndarray, "n k"]], Float64[np.ndarray, "n 2"]]
"""Turns k uniform numbers a row into a point."""

TRAIN, TEST = 0, 1


@dataclass(frozen=True)
class Draws:
    """The draws of a law: row i is a function of (seed, stream, i) alone; epochs do not exist."""

    law: Law
    uniforms: int
    """How many the law needs a row."""
    stream: int

    def __len__(self) -> int:
        return ENDLESS

    def batch(
        self, indices: Int[np.ndarray, " n"], seed: int = 0, epoch: int | Int[np.ndarray, " n"] = 0
    ) -> dict[str, np.ndarray]:
        del epoch
        points = self.law(_random.uniforms(_random.keys(seed, self.stream, indices), self.uniforms))
        return {"x1": points.astype(np.float32), "label": np.full(len(indices), NULL_LABEL, np.int32)}


def plane(
    name: str,
    parameters: dict[str, Any],
    law: Law,
    *,
    uniforms: int,
    log_density: Callable | None = None,
    modes: Modes | None = None,
) -> Dataset:
    """The data set of a law; the test source draws from a stream of its own."""
    return Dataset(
        train=Draws(law, uniforms, TRAIN),
        test=Draws(law, uniforms, TEST),
        shape=(2,),
        num_classes=0,
        kind="plane",
        fingerprint=fingerprint(name, parameters),
        log_density=log_density,
        modes=modes,
    )
