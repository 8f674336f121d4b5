"""The feature maps of a small convolutional classifier: the network of flowmaps/metrics/features.py, beside which its
weights for digits of 8 x 8 lie."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from flowmaps.types import Array

LAYERS = {"conv1": (32, 1), "conv2": (64, 2), "conv3": (64, 1)}
"""Channels and stride of each 3 x 3 convolution."""
HIDDEN = 64


class Classifier(nn.Module):
    """x [B, H, W, C] in [-1, 1] -> three maps [B, h, w, c] and the hidden layer [B, 64], all non-negative. It has no
    logits, and so knows nothing of the number of classes."""

    shape: tuple[int, ...]
    num_classes: int

    @nn.compact
    def __call__(self, x: Float[Array, "b h w c"]) -> tuple[Float[Array, "b ..."], ...]:
        maps = []
        for name, (channels, stride) in LAYERS.items():
            x = nn.relu(nn.Conv(channels, (3, 3), strides=stride, padding=1, name=name)(x))
            maps.append(x)
        return *maps, nn.relu(nn.Dense(HIDDEN, name="hidden")(x.reshape(x.shape[0], -1)))

    def inputs(self) -> tuple:
        """Two example images."""
        return (jnp.zeros((2, *self.shape)),)


make = Classifier
