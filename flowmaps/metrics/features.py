"""Features of 8 x 8 digits: the last hidden layer of a small convolutional classifier, in plain numpy.

scripts/train_classifier.py trained it on the 1,500 training digits and wrote its weights.
"""

import functools
from collections.abc import Mapping
from importlib import resources

import numpy as np
from jaxtyping import Float

Weights = Mapping[str, np.ndarray]

STRIDES = {"conv1": 1, "conv2": 2, "conv3": 1}
BLOCK = 256
"""Images that go through the network together."""


def extract(images: Float[np.ndarray, "n 8 8 1"]) -> Float[np.ndarray, "n 64"]:
    """The features of images in [-1, 1], float64, all non-negative. They are kept for a while, read-only: several
    metrics look at the same samples, and at the same real images again and again."""
    return _extracted(np.ascontiguousarray(images, np.float64).tobytes(), images.shape)


def logits(images: Float[np.ndarray, "n 8 8 1"]) -> Float[np.ndarray, "n 10"]:
    """The classifier's unnormalised log probabilities of the ten digits."""
    return dense(load_weights(), "logits", extract(images))


def hidden(weights: Weights, images: Float[np.ndarray, "n 8 8 1"]) -> Float[np.ndarray, "n d"]:
    """The last hidden layer under the given weights."""
    x = np.asarray(images, np.float64)
    for name, stride in STRIDES.items():
        x = relu(convolution(weights, name, x, stride))
    return relu(dense(weights, "hidden", x.reshape(len(x), -1)))


def convolution(
    weights: Weights, name: str, x: Float[np.ndarray, "n h w c"], stride: int
) -> Float[np.ndarray, "n _h _w _c"]:
    """A 3 x 3 convolution, zeros one pixel around; kernels are [3, 3, c, _c]."""
    height, width = x.shape[1:3]
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    taps = [padded[:, i : i + height : stride, j : j + width : stride] for i in range(3) for j in range(3)]
    kernel = weights[f"{name}/kernel"]
    return np.concatenate(taps, axis=-1) @ kernel.reshape(-1, kernel.shape[-1]) + weights[f"{name}/bias"]


def dense(weights: Weights, name: str, x: Float[np.ndarray, "n c"]) -> Float[np.ndarray, "n _c"]:
    """An affine layer."""
    return x @ weights[f"{name}/kernel"] + weights[f"{name}/bias"]


def relu(x: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """max(x, 0)."""
    return np.maximum(x, 0)


@functools.lru_cache(maxsize=8)
def _extracted(content: bytes, shape: tuple[int, ...]) -> Float[np.ndarray, "n 64"]:
    images = np.frombuffer(content).reshape(shape)
    blocks = (images[start : start + BLOCK] for start in range(0, len(images), BLOCK))
    found = np.concatenate([hidden(load_weights(), block) for block in blocks])
    found.setflags(write=False)
    return found


@functools.cache
def load_weights() -> Weights:
    """The weights by layer and part ("conv1/kernel"), float64."""
    return {name: array.astype(np.float64) for name, array in _stored().items() if name != "data"}


def trained_on() -> str:
    """The fingerprint of the data, split included, whose training part the classifier saw."""
    return str(_stored()["data"])


def _stored() -> Weights:
    with resources.files(__package__).joinpath("digits_features.npz").open("rb") as file:
        return dict(np.load(file, allow_pickle=False))
