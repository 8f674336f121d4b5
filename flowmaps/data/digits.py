"""scikit-learn's 1,797 handwritten digits of 8x8 pixels (UCI optdigits): real images that need no download."""

import numpy as np

from flowmaps.data import _random
from flowmaps.data._dataset import Dataset, fingerprint
from flowmaps.data._images import Images

TRAIN = 1500
"""Images for training; the other 297 are held out."""


def make(*, dequantise: bool = False) -> Dataset:
    """The split is a fixed permutation; pixels 0..16 become [-1, 1]. dequantise: training images are spread evenly over
    their level, [k - 1/2, k + 1/2) for pixel k, so that they have a density, whose likelihood is bits of the levels."""
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    order = _random.permutation(len(pixels), 0)
    pixels, labels = pixels[order].reshape(-1, 8, 8, 1).astype(np.uint8), labels[order].astype(np.int32)
    return Dataset(
        train=Images(pixels[:TRAIN], labels[:TRAIN], white=16, spread=dequantise),
        test=Images(pixels[TRAIN:], labels[TRAIN:], white=16),
        shape=(8, 8, 1),
        num_classes=10,
        kind="digits",
        fingerprint=fingerprint("digits", pixels, labels, *(["dequantised"] if dequantise else [])),
    )
