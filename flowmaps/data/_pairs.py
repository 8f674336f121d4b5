"""Stored pairs: noise and where a model took it, examples for students (reflow, knowledge distillation).

A folder holds pairs.json, what made them, and shards pairs-00000-of-00005.array_record. A record is an example, float32
[1 + K, *shape]: x0, then K states of its way at equal times, the last of them x1. Example i has label i mod the number
of classes. A shard takes its name once it is whole.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from flowmaps import pair_files
from flowmaps.data._dataset import Dataset, Source, fingerprint
from flowmaps.data._paired import drawn
from flowmaps.errors import MissingError, UsageError
from flowmaps.types import NULL_LABEL

IN_MEMORY = 1 << 30
"""Bytes up to which examples are read once and kept."""


@dataclass(frozen=True)
class Pairs:
    """The examples of a folder; with `real`, each beside a random example of the data themselves."""

    folder: Path
    origin: Mapping[str, Any]
    """What made them: pairs.json."""
    real: Source | None = None

    def __len__(self) -> int:
        return self.origin["num_pairs"]

    def batch(
        self, indices: Int[np.ndarray, " n"], seed: int = 0, epoch: int | Int[np.ndarray, " n"] = 0
    ) -> dict[str, np.ndarray]:
        """{"x0", "x1": float32 [n, *shape], "label": int32 [n]}; "path" [n, K, *shape] where K > 1, and "real",
        "real_label" where there are such."""
        examples = self._examples(indices)
        classes = self.origin["num_classes"]
        label = indices % classes if classes else np.full(len(indices), NULL_LABEL)
        given = {"x0": examples[:, 0], "x1": examples[:, -1], "label": label.astype(np.int32)}
        if self.points > 1:
            given["path"] = examples[:, 1:]
        if self.real is not None:
            real = drawn(self.real, indices, seed, epoch)
            given |= {"real": real["x1"], "real_label": real["label"]}
        return given

    @property
    def fingerprint(self) -> str:
        """Of what made them."""
        return fingerprint({name: value for name, value in self.origin.items() if name != "environment"})

    @property
    def points(self) -> int:
        """K."""
        return self.origin["points"]

    @property
    def _example(self) -> tuple[int, ...]:
        return (1 + self.points, *self.origin["shape"])

    @cached_property
    def _readers(self) -> list:
        from array_record.python import array_record_module

        files = pair_files.files(self.folder, len(self), self.origin["shard"])
        return [array_record_module.ArrayRecordReader(str(file)) for file in files]

    @cached_property
    def _kept(self) -> Float[np.ndarray, "n k *d"] | None:
        """All examples, where they are few."""
        if 4 * len(self) * int(np.prod(self._example)) > IN_MEMORY:
            return None
        return self._arrays([record for reader in self._readers for record in reader.read_all()])

    def _examples(self, indices: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n k *d"]:
        if self._kept is not None:
            return self._kept[indices]
        found = np.empty((len(indices), *self._example), np.float32)
        files, places = np.divmod(indices, self.origin["shard"])
        for file in np.unique(files):
            here = files == file
            found[here] = self._arrays(self._readers[file].read(places[here].tolist()))
        return found

    def _arrays(self, records: Sequence[bytes]) -> Float[np.ndarray, "n k *d"]:
        return np.frombuffer(b"".join(records), np.float32).reshape(-1, *self._example)


def pairs(folder: str, dataset: Dataset, *, real: bool = False) -> Pairs:
    """The pairs of a folder, with `real` beside examples of the data set.

    Raises MissingError where there are none, or not all that were asked for, UsageError where they are not of such
    data.
    """
    found = read(folder)
    own, wanted = (tuple(found.origin["shape"]), found.origin["num_classes"]), (dataset.shape, dataset.num_classes)
    if own != wanted:
        raise UsageError(
            f"coupling.pairs={folder!r} are examples of shape {own[0]} in {own[1]} classes, and the data of "
            f"{wanted[0]} in {wanted[1]}"
        )
    if found.origin["data"] != dataset.fingerprint:
        raise UsageError(
            f"coupling.pairs={folder!r} are of data with the fingerprint {found.origin['data']}, and these have "
            f"{dataset.fingerprint}: give both the same options of data"
        )
    return replace(found, real=dataset.train if real else None)


def read(folder: str) -> Pairs:
    """The pairs of a folder. Raises MissingError where there are none, or not all that were asked for."""
    path = Path(folder).expanduser()
    if not (path / "pairs.json").is_file():
        raise MissingError(
            f"coupling.pairs={folder!r} holds no pairs: make them with the teacher's config, --mode=sample and "
            "--config.sample.pairs=NUMBER, and name the folder that it prints"
        )
    origin = json.loads((path / "pairs.json").read_text())
    left = sum(not file.is_file() for file in pair_files.files(path, origin["num_pairs"], origin["shard"]))
    if left:
        raise MissingError(
            f"coupling.pairs={folder!r} is not finished, {left} files are missing: give the command that makes it again"
        )
    return Pairs(path, origin)
