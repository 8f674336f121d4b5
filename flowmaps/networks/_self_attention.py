"""Self-attention between tokens, as a layer."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from flowmaps.errors import UsageError
from flowmaps.networks.attention import Form, attend
from flowmaps.types import Array

Tokens = Float[Array, "b n w"]
Heads = Float[Array, "b n h d"]
Angles = Float[np.ndarray, "n half"]
Initializer = nn.initializers.Initializer


def rotated(x: Heads, angles: Angles) -> Heads:
    """Each token's channels, in pairs (i, i + d / 2), turned by its angles: products of two then know of their
    difference alone."""
    first, second = jnp.split(x, 2, axis=-1)
    cos, sin = (jnp.asarray(wave(angles), x.dtype)[None, :, None] for wave in (np.cos, np.sin))
    return jnp.concatenate([first * cos - second * sin, first * sin + second * cos], axis=-1)


class Attention(nn.Module):
    """Self-attention between tokens, whose places are told by `angles` where they are given."""

    heads: int
    dtype: type | None
    kernel_init: Initializer = nn.linear.default_kernel_init
    """Of the projection that ends it."""
    reading_init: Initializer = nn.linear.default_kernel_init
    """Of those to queries, keys and values."""
    use_bias: bool = True
    qk_norm: bool = False
    """Queries and keys of mean square 1 in each head, times a learned scale, so that scores stay bounded
    (arXiv:2302.05442)."""
    form: Form = "auto"

    @nn.compact
    def __call__(self, x: Tokens, angles: Angles | None = None) -> Tokens:
        width = x.shape[-1]
        if width % self.heads:
            raise UsageError(f"network.heads={self.heads} does not divide a width of {width}")
        shared = {"use_bias": self.use_bias, "dtype": self.dtype}
        shape = (3, self.heads, width // self.heads)
        qkv = nn.DenseGeneral(shape, kernel_init=self.reading_init, **shared)(x)
        query, key, value = jnp.moveaxis(qkv, -3, 0)
        if self.qk_norm:
            query, key = nn.RMSNorm(dtype=self.dtype)(query), nn.RMSNorm(dtype=self.dtype)(key)
        if angles is not None:
            query, key = rotated(query, angles), rotated(key, angles)
        mixed = attend(query, key, value, self.form)
        return nn.DenseGeneral(width, axis=(-2, -1), kernel_init=self.kernel_init, **shared)(mixed)
