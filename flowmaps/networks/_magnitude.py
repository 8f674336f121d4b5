"""Layers that keep magnitudes (Karras et al. 2024, arXiv:2312.02696, section 2.3 and appendix B): inputs whose numbers
have mean square 1, and are uncorrelated where two meet, give outputs of mean square 1.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Float, Key

from flowmaps.networks.attention import Form, attend
from flowmaps.types import Array

Images = Float[Array, "b _ _ _"]


def unit(x: Float[Array, "*d"], axis: int | tuple[int, ...] = -1) -> Float[Array, "*d"]:
    """Of mean square 1 along the axes: of channels it is pixel norm (arXiv:1710.10196)."""
    return x / jnp.sqrt(jnp.mean(jnp.square(x), axis=axis, keepdims=True) + 1e-8)


def unit_kernel(kernel: Float[Array, "*d"]) -> Float[Array, "*d"]:
    """The weights [..., features] of each feature of mean square 1: on a sphere of radius sqrt(fan in)."""
    return unit(kernel, tuple(range(kernel.ndim - 1)))


def silu(x: Float[Array, "*d"]) -> Float[Array, "*d"]:
    """SiLU over the root of its mean square for normal numbers (eq. 81)."""
    return nn.silu(x) / 0.596


def mixed(a: Float[Array, "*d"], b: Float[Array, "*d"], share: float) -> Float[Array, "*d"]:
    """The sum of two that are uncorrelated, with so much of the second (eq. 88)."""
    return ((1 - share) * a + share * b) / math.hypot(1 - share, share)


def joined(a: Images, b: Images) -> Images:
    """The channels of both, each of which counts half whatever their numbers are (eq. 103, t = 1/2)."""
    total = (a.shape[-1] + b.shape[-1]) / 2
    return jnp.concatenate([a * math.sqrt(total / a.shape[-1]), b * math.sqrt(total / b.shape[-1])], axis=-1)


def _on_the_sphere(key: Key[Array, ""], shape: tuple[int, ...], dtype: type) -> Array:
    return unit_kernel(jax.random.normal(key, shape, dtype))


class Weights(nn.Module):
    """A dense layer of the last axis, or a convolution of a `window`, without bias, whose weights are used on their
    sphere, in x's precision: their own length, which training would let grow, does not count."""

    features: int
    window: int = 1

    @nn.compact
    def __call__(self, x: Float[Array, "b *d"]) -> Float[Array, "b *e"]:
        window = () if self.window == 1 else (self.window,) * 2
        kernel = self.param("kernel", _on_the_sphere, (*window, x.shape[-1], self.features), jnp.float32)
        kernel = (unit_kernel(kernel) / math.sqrt(kernel[..., 0].size)).astype(x.dtype)
        if self.window == 1:
            return x @ kernel
        return lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


class CosineAttention(nn.Module):
    """Self-attention between pixels, whose queries, keys and values have mean square 1 in each head."""

    heads: int
    form: Form = "auto"

    @nn.compact
    def __call__(self, x: Images) -> Images:
        batch, *_, channels = x.shape
        qkv = Weights(3 * channels)(x).reshape(batch, -1, 3, self.heads, channels // self.heads)
        attended = attend(*jnp.moveaxis(unit(qkv), 2, 0), self.form)
        return Weights(channels)(attended.reshape(x.shape))
