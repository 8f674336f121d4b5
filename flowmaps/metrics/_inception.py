"""Inception-v3 as TensorFlow's graph of 2015-12-05 has it, on which published FIDs are measured.

Szegedy et al. 2015, arXiv:1512.00567, with that graph's own ways: its bilinear resize inside of it, averages that leave
out the padding, a maximum in the pool of the last block, 1,008 classes. Modules have the names of the weights' file.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax import lax
from jaxtyping import Float, UInt8

from flowmaps.types import Array

SIDE = 299
POOL, CLASSES = 2048, 1008
SPATIAL = (17, 17, 7)
"""sFID's part of the inside: the first channels of block 6d, which are those of its 1 x 1 branch."""
EXACT = lax.Precision.HIGHEST
"""Accelerators round the factors of a product to few digits by default, which moves features by more than 1e-4."""


class Features(NamedTuple):
    """What metrics read of images."""

    pool: Float[Array | np.ndarray, "n 2048"]
    """The last layer before the classes."""
    spatial: Float[Array | np.ndarray, "n 2023"]
    """sFID's, flattened in the order height, width, channel. Nash et al. 2021, arXiv:2103.03841."""
    logits: Float[Array | np.ndarray, "n 1008"]
    """Of the classes, without their bias, as the inception score takes them."""


class Inception(nn.Module):
    """Images of any size, grey or in colour, 0 to 255 -> features, in float32 throughout."""

    @nn.compact
    def __call__(self, images: UInt8[Array, "n h w c"]) -> Features:
        x = (resized(jnp.broadcast_to(images, (*images.shape[:3], 3)).astype(jnp.float32)) - 128) / 128
        x = Conv(32, (3, 3), stride=2, name="Conv2d_1a_3x3")(x)
        x = Conv(32, (3, 3), padding="VALID", name="Conv2d_2a_3x3")(x)
        x = Conv(64, (3, 3), name="Conv2d_2b_3x3")(x)
        x = halved(x)
        x = Conv(80, name="Conv2d_3b_1x1")(x)
        x = Conv(192, (3, 3), padding="VALID", name="Conv2d_4a_3x3")(x)
        x = halved(x)
        x = Block35(32, name="Mixed_5b")(x)
        x = Block35(64, name="Mixed_5c")(x)
        x = Block35(64, name="Mixed_5d")(x)
        x = Reduction17(name="Mixed_6a")(x)
        x = Block17(128, name="Mixed_6b")(x)
        x = Block17(160, name="Mixed_6c")(x)
        x = inside = Block17(160, name="Mixed_6d")(x)
        x = Block17(192, name="Mixed_6e")(x)
        x = Reduction8(name="Mixed_7a")(x)
        x = Block8(average, name="Mixed_7b")(x)
        x = Block8(maximum, name="Mixed_7c")(x)
        pool = x.mean(axis=(1, 2))
        logits = nn.Dense(CLASSES, use_bias=False, precision=EXACT, name="fc")(pool)
        return Features(pool, inside[..., : SPATIAL[-1]].reshape(len(x), -1), logits)


class Conv(nn.Module):
    """A convolution without bias, normalised by stored moments, then the positive part."""

    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: int = 1
    padding: str | None = None
    """By default as much as keeps the size, and none where there is a stride."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n _h _w _c"]:
        padding = self.padding or ("SAME" if self.stride == 1 else "VALID")
        x = nn.Conv(self.width, self.kernel, self.stride, padding, use_bias=False, precision=EXACT, name="conv")(x)
        return nn.relu(nn.BatchNorm(use_running_average=True, epsilon=1e-3, name="bn")(x))


class Block35(nn.Module):
    """The block at 35 x 35."""

    pooled: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w _c"]:
        one = Conv(64, name="branch1x1")(x)
        five = Conv(48, name="branch5x5_1")(x)
        five = Conv(64, (5, 5), name="branch5x5_2")(five)
        three = Conv(64, name="branch3x3dbl_1")(x)
        three = Conv(96, (3, 3), name="branch3x3dbl_2")(three)
        three = Conv(96, (3, 3), name="branch3x3dbl_3")(three)
        return jnp.concatenate([one, five, three, Conv(self.pooled, name="branch_pool")(average(x))], axis=-1)


class Reduction17(nn.Module):
    """From 35 x 35 to 17 x 17."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n _h _w _c"]:
        three = Conv(384, (3, 3), stride=2, name="branch3x3")(x)
        double = Conv(64, name="branch3x3dbl_1")(x)
        double = Conv(96, (3, 3), name="branch3x3dbl_2")(double)
        double = Conv(96, (3, 3), stride=2, name="branch3x3dbl_3")(double)
        return jnp.concatenate([three, double, halved(x)], axis=-1)


class Block17(nn.Module):
    """The block at 17 x 17, whose convolutions of 7 x 7 are one along each axis."""

    width: int

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w _c"]:
        one = Conv(192, name="branch1x1")(x)
        seven = Conv(self.width, name="branch7x7_1")(x)
        seven = Conv(self.width, (1, 7), name="branch7x7_2")(seven)
        seven = Conv(192, (7, 1), name="branch7x7_3")(seven)
        double = Conv(self.width, name="branch7x7dbl_1")(x)
        double = Conv(self.width, (7, 1), name="branch7x7dbl_2")(double)
        double = Conv(self.width, (1, 7), name="branch7x7dbl_3")(double)
        double = Conv(self.width, (7, 1), name="branch7x7dbl_4")(double)
        double = Conv(192, (1, 7), name="branch7x7dbl_5")(double)
        return jnp.concatenate([one, seven, double, Conv(192, name="branch_pool")(average(x))], axis=-1)


class Reduction8(nn.Module):
    """From 17 x 17 to 8 x 8."""

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n _h _w _c"]:
        three = Conv(192, name="branch3x3_1")(x)
        three = Conv(320, (3, 3), stride=2, name="branch3x3_2")(three)
        seven = Conv(192, name="branch7x7x3_1")(x)
        seven = Conv(192, (1, 7), name="branch7x7x3_2")(seven)
        seven = Conv(192, (7, 1), name="branch7x7x3_3")(seven)
        seven = Conv(192, (3, 3), stride=2, name="branch7x7x3_4")(seven)
        return jnp.concatenate([three, seven, halved(x)], axis=-1)


class Block8(nn.Module):
    """The block at 8 x 8, two of whose branches part into one along each axis."""

    pool: Callable[[Array], Array]

    @nn.compact
    def __call__(self, x: Float[Array, "n h w c"]) -> Float[Array, "n h w 2048"]:
        one = Conv(320, name="branch1x1")(x)
        three = Conv(384, name="branch3x3_1")(x)
        three = [Conv(384, (1, 3), name="branch3x3_2a")(three), Conv(384, (3, 1), name="branch3x3_2b")(three)]
        double = Conv(448, name="branch3x3dbl_1")(x)
        double = Conv(384, (3, 3), name="branch3x3dbl_2")(double)
        double = [Conv(384, (1, 3), name="branch3x3dbl_3a")(double), Conv(384, (3, 1), name="branch3x3dbl_3b")(double)]
        return jnp.concatenate([one, *three, *double, Conv(192, name="branch_pool")(self.pool(x))], axis=-1)


def average(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """The mean of the 3 x 3 around, of what lies inside of the image."""
    return nn.avg_pool(x, (3, 3), padding="SAME", count_include_pad=False)


def maximum(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """The largest of the 3 x 3 around."""
    return nn.max_pool(x, (3, 3), padding="SAME")


def halved(x: Float[Array, "n h w c"]) -> Float[Array, "n _h _w c"]:
    """The largest of every second 3 x 3."""
    return nn.max_pool(x, (3, 3), strides=(2, 2))


def resized(images: Float[Array, "n h w c"]) -> Float[Array, "n 299 299 c"]:
    """Images of 299 x 299, as TensorFlow 1 interpolates: linearly, pixel i of the result at i h / 299 of the original
    (corner upon corner, rather than centre upon centre), without smoothing where it becomes smaller."""
    return _interpolated(_interpolated(images, axis=2), axis=1)


def _interpolated(images: Float[Array, "n h w c"], axis: int) -> Float[Array, "n _h _w c"]:
    size = images.shape[axis]
    place = np.arange(SIDE, dtype=np.float32) * (np.float32(size) / np.float32(SIDE))
    below = place.astype(np.int32)
    above = np.minimum(below + 1, size - 1)
    lower, upper = (jnp.take(images, taps, axis=axis) for taps in (below, above))
    return lower + (upper - lower) * np.expand_dims(place - below, [a for a in range(4) if a != axis])
