"""Images as an autoencoder's latents, made beforehand, which stay on disk and are read as they are needed.

A folder that scripts/encode_latents.py has made holds the Gaussian of each image, from which every epoch draws anew
(flowmaps/latent_files.py). Or it has latents.npy, float [N, H, W, C], and where there are classes labels.npy, whole
numbers [N] from 0 on.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Int

from flowmaps import latent_files
from flowmaps.data import _images, _random
from flowmaps.data._dataset import Coding, Dataset, fingerprint
from flowmaps.errors import MissingError, UsageError
from flowmaps.types import NULL_LABEL

STAMPS = 64
"""Rows whose content tells one file from another."""
NOISE = 1
"""Of an example's key: the flip of its image takes the key itself."""


@dataclass(frozen=True)
class Latents:
    """The rows of an array on disk, times `scale`."""

    rows: np.ndarray
    labels: Int[np.ndarray, " n"]
    scale: float

    def __len__(self) -> int:
        return len(self.rows)

    def batch(
        self, indices: Int[np.ndarray, " n"], seed: int = 0, epoch: int | Int[np.ndarray, " n"] = 0
    ) -> dict[str, np.ndarray]:
        """What any source gives; nothing is drawn."""
        x1 = np.float32(self.scale) * self.rows[indices].astype(np.float32)
        return {"x1": x1, "label": self.labels[indices].astype(np.int32)}


@dataclass(frozen=True)
class Gaussians:
    """Draws from the Gaussians of a folder, times `scale`."""

    shards: tuple[np.ndarray, ...]
    """Of records; all but the last have equally many."""
    labels: Int[np.ndarray, " n"]
    scale: float

    def __len__(self) -> int:
        return len(self.labels)

    def batch(
        self, indices: Int[np.ndarray, " n"], seed: int = 0, epoch: int | Int[np.ndarray, " n"] = 0
    ) -> dict[str, np.ndarray]:
        """What any source gives: mean + std * noise of the image or, half of the time where it is there, of its mirror
        image, both drawn from (seed, epoch, index)."""
        mean, std = self.moments(indices, _images.flips(indices, seed, epoch))
        noise = _random.normals(_random.keys(seed, epoch, indices, NOISE), mean[0].size)
        x1 = np.float32(self.scale) * (mean + std * noise.reshape(mean.shape))
        return {"x1": x1, "label": self.labels[indices].astype(np.int32)}

    def moments(
        self, indices: Int[np.ndarray, " n"], mirrored: Bool[np.ndarray, " n"]
    ) -> tuple[Float32[np.ndarray, "n h w c"], Float32[np.ndarray, "n h w c"]]:
        """Mean and standard deviation of each image, or of the mirror image where there is one."""
        copies, *shape = self.shards[0].dtype["mean"].shape
        copy = mirrored * (copies - 1)
        mean, std = (np.empty((len(indices), *shape), np.float32) for _ in range(2))
        files, places = np.divmod(indices, len(self.shards[0]))
        for file in np.unique(files):
            here = files == file
            for part, values in (("mean", mean), ("std", std)):
                values[here] = self.shards[file][part][places[here], copy[here]]
        return mean, std


def make(*, dir: str = "", scale: float = 0.18215, autoencoder: str = "") -> Dataset:
    """The latents of the folder `dir`, times `scale` (0.18215: Stable Diffusion's, which brings them to unit variance).

    autoencoder: the .safetensors file of the autoencoder that makes images of samples; "": samples stay latents.
    Raises MissingError where there are no latents, or not all, UsageError where the arrays are not latents and their
    labels.
    """
    folder = Path(dir).expanduser()
    origin = latent_files.described(folder)
    found = _encoded(folder, scale, origin) if origin else _array(folder, scale)
    return found._replace(coding=Coding(autoencoder, scale, origin.get("encoder", "")) if autoencoder else None)


def _encoded(folder: Path, scale: float, origin: Mapping[str, Any]) -> Dataset:
    """The Gaussians of a folder, and what latents.json says of them."""
    if not (folder / "statistics.json").is_file():
        files = latent_files.files(folder, origin)
        left = sum(not file.is_file() for file in files)
        raise MissingError(
            f"the latents in {folder} are not finished, {left} of {len(files)} files are missing: give the command of "
            "scripts/encode_latents.py that makes them again"
        )
    shards = tuple(map(read, latent_files.files(folder, origin)))
    labels = np.full(origin["count"], NULL_LABEL, np.int32)
    if origin["num_classes"]:
        labels = np.asarray(read(folder / "labels.npy"))
    return Dataset(
        train=Gaussians(shards, labels, scale),
        test=None,
        shape=tuple(origin["shape"]),
        num_classes=origin["num_classes"],
        kind="latent",
        fingerprint=fingerprint("latents", scale, origin, (folder / "statistics.json").read_text()),
    )


def _array(folder: Path, scale: float) -> Dataset:
    """The latents of a single array."""
    file = folder / "latents.npy"
    if not file.is_file():
        raise MissingError(
            f"there are no latents in {folder}: make them with `python scripts/encode_latents.py --out=FOLDER` (--help "
            "says more) and set data.dir to that folder"
        )
    rows = read(file)
    if rows.dtype not in (np.float16, np.float32) or rows.ndim != 4 or len(rows) == 0:
        raise UsageError(f"{file} is {rows.dtype} {list(rows.shape)}, not float16 or float32 [N, H, W, C]")
    labels, classes = np.full(len(rows), NULL_LABEL, np.int32), file.with_name("labels.npy")
    if classes.is_file():
        labels = np.asarray(read(classes))
        if labels.shape != rows.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0:
            raise UsageError(
                f"{classes} is {labels.dtype} {list(labels.shape)}, not whole numbers from 0 on, one for each of the "
                f"{len(rows)} latents"
            )
    some = np.asarray(rows[np.linspace(0, len(rows) - 1, STAMPS).astype(int)])
    return Dataset(
        train=Latents(rows, labels, scale),
        test=None,
        shape=rows.shape[1:],
        num_classes=1 + int(labels.max()),
        kind="latent",
        fingerprint=fingerprint("latents", scale, rows.shape, some, labels),
    )


def read(file: Path) -> np.ndarray:
    """The array of an .npy file, on disk. Raises UsageError where it is none."""
    try:
        return np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise UsageError(f"{file} is not a readable .npy file: {error}") from error
