"""A folder, or a .zip archive, of PNG or JPG images; where there are two or more sub-folders, they are the classes.

All images are read, and so checked, at the start, and lie in memory. Where they are too many for that, make a
TFDS data set of them with scripts/prepare_images.py.
"""

import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from flowmaps.data import _files, _images, _memory
from flowmaps.data._dataset import Dataset
from flowmaps.errors import UsageError


def make(
    *,
    dir: str = "",
    size: int = 0,
    crop: int = 0,
    resize: bool = False,
    flip: bool = False,
    labels: bool = True,
    held_out: float = 0.0,
) -> Dataset:
    """The images below the folder `dir`.

    size: the side of the images; 0: all are as large as the first. crop: the side of the centred square cut out
    first; -1: the largest; 0: none. resize: whether images of another size are resized to `size` (antialiased)
    rather than refused. flip: mirror training images left to right, half of the time. labels: whether sub-folders
    are classes. held_out: the fraction kept for the test source, chosen by a fixed permutation; 0: no test source.
    Grey images have one channel unless others are in colour. Raises MissingError where there is no folder, UsageError
    that names the file where one is broken or of the wrong size.
    """
    if not dir:
        raise UsageError("data.dir is empty: set it to a folder of PNG or JPG images")
    if resize and not size:
        raise UsageError("data.resize needs data.size, the side to resize to")
    files = _files.find(dir)
    pixels = _read(list(files.paths.values()), size, crop, resize)
    return _memory.split(pixels, files.labels, len(files.classes) if labels else 0, flip=flip, held_out=held_out)


def _read(paths: list[Path] | list[zipfile.Path], size: int, crop: int, resize: bool) -> UInt8[np.ndarray, "n h w c"]:
    channels = max(map(_files.channels, paths))

    def image(path: Path | zipfile.Path) -> np.ndarray:
        target = size if resize else 0
        return _images.pixels(_files.read(path, channels=channels, crop=crop, size=target))

    height, width = (size, size) if size else image(paths[0]).shape[:2]
    pixels = _memory.empty((len(paths), height, width, channels), paths[0].parent)

    def fill(row: int) -> None:
        values = image(paths[row])
        if values.shape[:2] != (height, width):
            raise UsageError(
                f"{paths[row]} is {values.shape[1]}x{values.shape[0]}, not {width}x{height}: "
                "mend it, or set data.crop, or data.size and data.resize"
            )
        pixels[row] = values

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(len(paths))))
    return pixels
