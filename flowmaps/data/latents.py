"""Images as an autoencoder's latents, made beforehand: a folder with latents.npy, float [N, H, W, C], which stays on
disk and is read as it is needed, and where there are classes labels.npy, whole numbers [N] from 0 on.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from flowmaps.data._dataset import Dataset, fingerprint
from flowmaps.errors import MissingError, UsageError
from flowmaps.types import NULL_LABEL

STAMPS = 64
"""Rows whose content tells one file from another."""


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


def make(*, dir: str = "", scale: float = 0.18215) -> Dataset:
    """The latents of the folder `dir`, times `scale` (0.18215: Stable Diffusion's, which brings them to unit variance).

    Raises MissingError where there is no such file, UsageError where its arrays are not latents and their labels.
    """
    file = Path(dir).expanduser() / "latents.npy"
    if not file.is_file():
        raise MissingError(
            f"there is no file {file}: encode the images with an autoencoder, save them there as float16 or float32 "
            "[N, H, W, C] (and labels.npy beside them), and set data.dir to the folder"
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
