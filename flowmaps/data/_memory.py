"""Data sets of images that lie in memory."""

import os

import numpy as np
from jaxtyping import Int, UInt8

from flowmaps.data import _random
from flowmaps.data._dataset import Dataset, fingerprint
from flowmaps.data._images import Images
from flowmaps.errors import UsageError


def split(
    pixels: UInt8[np.ndarray, "n h w c"],
    labels: Int[np.ndarray, " n"],
    num_classes: int,
    *,
    flip: bool,
    held_out: float,
) -> Dataset:
    """The data set of which the fraction `held_out`, chosen by a fixed permutation, is the test source.

    Raises UsageError where the fraction leaves nothing to train on.
    """
    count = round(held_out * len(pixels))
    if not 0 <= count < len(pixels):
        raise UsageError(f"held_out is {held_out}, of {len(pixels)} images: it must lie in [0, 1)")
    if count == 0:
        return dataset((pixels, labels), None, num_classes, flip=flip)
    order = _random.permutation(len(pixels), 0)
    test, train = np.sort(order[:count]), np.sort(order[count:])
    return dataset((pixels[train], labels[train]), (pixels[test], labels[test]), num_classes, flip=flip)


def dataset(
    train: tuple[np.ndarray, np.ndarray],
    test: tuple[np.ndarray, np.ndarray] | None,
    num_classes: int,
    *,
    flip: bool,
) -> Dataset:
    """The data set of (pixels [N, H, W, C] uint8, labels [N]) to train on and, perhaps, to test on."""
    return Dataset(
        train=Images(*train, flip=flip),
        test=None if test is None else Images(*test),
        shape=train[0].shape[1:],
        num_classes=num_classes,
        kind="image",
        fingerprint=fingerprint(*train, *(test or ())),
    )


def empty(shape: tuple[int, ...], where: object) -> UInt8[np.ndarray, "n h w c"]:
    """Room for images. Raises UsageError where they would take more than half of the machine's memory."""
    needed = int(np.prod(shape, dtype=np.int64))
    installed = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > installed / 2:
        raise UsageError(
            f"the {shape[0]} images of {where} take {needed / 2**30:.1f} GiB, over half of this machine's memory: "
            "make a TFDS data set of them (python scripts/prepare_images.py --help) and use data.name=tfds"
        )
    return np.empty(shape, np.uint8)
