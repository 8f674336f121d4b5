"""Images in an .npz file of numpy arrays.

The images are uint8 [N, H, W, C], or [N, H, W] for grey ones, under one of the names in IMAGES; labels, which
may be missing, are whole numbers [N] from 0 on. Test images may lie beside them.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from flowmaps.data import _memory
from flowmaps.data._dataset import Dataset
from flowmaps.errors import MissingError, UsageError
from flowmaps.types import NULL_LABEL

IMAGES, LABELS = ("images", "x", "arr_0", "train_x"), ("labels", "y", "arr_1", "train_y")
TEST_IMAGES, TEST_LABELS = ("test_images", "test_x"), ("test_labels", "test_y")


def make(*, path: str = "", pad: int = 0, flip: bool = False, labels: bool = True, held_out: float = 0.0) -> Dataset:
    """The images of the file `path`.

    pad: rows and columns of black added on each side. flip: mirror training images left to right, half of the time.
    labels: whether those that are there are used. held_out: the fraction of images kept for the
    test source where the file has no test images, chosen by a fixed permutation; 0: no test source. Raises
    MissingError where there is no file, UsageError where its arrays are not images.
    """
    if not path:
        raise UsageError("data.path is empty: set it to an .npz file with uint8 images [N, H, W, C]")
    file = Path(path).expanduser()
    if not file.is_file():
        raise MissingError(f"there is no file {file}: put an .npz with uint8 images [N, H, W, C] there")
    arrays = _arrays(file)
    train, test = _pair(arrays, IMAGES, LABELS, file), _pair(arrays, TEST_IMAGES, TEST_LABELS, file)
    if train is None:
        raise UsageError(f"{file} holds {', '.join(arrays)}: name its images one of {', '.join(IMAGES)}")
    num_classes = 1 + max(pair[1].max() for pair in (train, test) if pair is not None)
    train, test = (pair and (padded(pair[0], pad), pair[1]) for pair in (train, test))
    classes = int(num_classes) if labels else 0
    if test is None:
        return _memory.split(*train, classes, flip=flip, held_out=held_out)
    return _memory.dataset(train, test, classes, flip=flip)


def padded(pixels: UInt8[np.ndarray, "n h w c"], pad: int) -> UInt8[np.ndarray, "n _h _w c"]:
    """Images with so many black pixels on each side."""
    return np.pad(pixels, ((0, 0), (pad, pad), (pad, pad), (0, 0)))


def _arrays(file: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{file} is not a readable .npz file: {error}") from error


def _pair(
    arrays: Mapping[str, np.ndarray], images: tuple[str, ...], labels: tuple[str, ...], file: Path
) -> tuple[np.ndarray, np.ndarray] | None:
    pixels = _first(arrays, images)
    if pixels is None:
        return None
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4) or len(pixels) == 0:
        raise UsageError(f"the images of {file} are {pixels.dtype} {list(pixels.shape)}, not uint8 [N, H, W, C]")
    pixels = pixels[..., None] if pixels.ndim == 3 else pixels
    classes = _first(arrays, labels)
    if classes is None:
        return pixels, np.full(len(pixels), NULL_LABEL, np.int32)
    if classes.shape != pixels.shape[:1] or classes.dtype.kind not in "iu" or classes.min() < 0:
        raise UsageError(
            f"the labels of {file} are {classes.dtype} {list(classes.shape)}, not whole numbers from 0 on, "
            f"one for each of its {len(pixels)} images"
        )
    return pixels, classes.astype(np.int32)


def _first(arrays: Mapping[str, np.ndarray], names: tuple[str, ...]) -> np.ndarray | None:
    return next((arrays[name] for name in names if name in arrays), None)
