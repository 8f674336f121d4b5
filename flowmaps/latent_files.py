"""Latents on disk: for each image the Gaussian that an autoencoder makes of it.

A folder holds latents.json, what made them; shards latents-00000-of-00005.npy of records, each whole or not there; and
once all of these are there labels.npy, where there are classes, and last of all statistics.json: the mean and the
standard deviation of each channel of the latents. A record has a "label", and the "mean" and "std" of the image and,
where there are two copies, of its mirror image: [copies, h, w, c] each.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from flowmaps.errors import UsageError
from flowmaps.files import whole

SHARDS = 128
"""Files that there are, about."""
SMALLEST, LARGEST = 256, 8192
"""Records in a file: few enough that little is lost with one, and of millions not too many files."""
BLOCK = 1024
"""Records that are summed together."""


def size(count: int) -> int:
    """Records in a file, of so many in all."""
    return int(np.clip(-(-count // SHARDS), SMALLEST, LARGEST))


def record(shape: tuple[int, ...], copies: int, dtype: str) -> np.dtype:
    """The type of a record of latents of `shape`, its numbers in float16 or float32."""
    moments = (np.dtype(dtype), (copies, *shape))
    return np.dtype([("label", "<i4"), ("mean", *moments), ("std", *moments)])


def files(folder: Path, origin: Mapping[str, Any]) -> list[Path]:
    """The shards of what latents.json says, which may not be there yet."""
    count = -(-origin["count"] // origin["shard"])
    return [folder / f"latents-{number:05d}-of-{count:05d}.npy" for number in range(count)]


def described(folder: Path) -> dict[str, Any]:
    """What latents.json says; nothing where there is none."""
    path = folder / "latents.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def begin(folder: Path, origin: Mapping[str, Any]) -> None:
    """Writes latents.json, or goes on beside one that says the same. Raises UsageError where it says otherwise."""
    path = folder / "latents.json"
    if not path.is_file():
        _save(path, origin)
    there = described(folder)
    different = [name for name in origin if there.get(name) != origin[name]]
    if different:
        name = different[0]
        raise UsageError(
            f"{folder} holds other latents, {name} {there.get(name)} and not {origin[name]}: remove the folder, or "
            "make the same"
        )


def write(file: Path, records: np.ndarray) -> None:
    """Writes a shard. Raises UsageError where it cannot be written, such as on a full disk."""
    _save(file, records)


def finish(folder: Path, origin: Mapping[str, Any]) -> None:
    """Writes labels.npy and statistics.json of a folder whose shards are all there. Raises as `write`."""
    shards = [np.load(file, mmap_mode="r") for file in files(folder, origin)]
    if origin["num_classes"]:
        _save(folder / "labels.npy", np.concatenate([shard["label"] for shard in shards]))
    mean, std = statistics(shards)
    _save(folder / "statistics.json", {"mean": mean.tolist(), "std": std.tolist()})
    for cut_short in folder.glob(".latents-*.npy.*"):
        cut_short.unlink(missing_ok=True)


def statistics(shards: list[np.ndarray]) -> tuple[Float[np.ndarray, " c"], Float[np.ndarray, " c"]]:
    """Mean and standard deviation of each channel of the latents, drawn from their Gaussians: E m and
    Var m + E s^2 over all images and pixels."""
    count, total, squares = 0, 0.0, 0.0
    for shard in shards:
        for start in range(0, len(shard), BLOCK):
            block = shard[start : start + BLOCK]
            mean, std = (block[part].astype(np.float64) for part in ("mean", "std"))
            over = tuple(range(mean.ndim - 1))
            count += mean[..., 0].size
            total, squares = total + mean.sum(over), squares + (mean**2 + std**2).sum(over)
    mean = total / count
    return mean, np.sqrt(squares / count - mean**2)


def _save(file: Path, content: np.ndarray | Mapping[str, Any]) -> None:
    try:
        with whole(file) as aside, aside.open("wb") as opened:
            if isinstance(content, np.ndarray):
                np.save(opened, content, allow_pickle=False)
            else:
                opened.write((json.dumps(content, indent=2) + "\n").encode())
    except OSError as error:
        raise UsageError(
            f"{file} cannot be written ({error.strerror or error}): make room there and give the same command again, "
            "which keeps the files that are whole"
        ) from error
