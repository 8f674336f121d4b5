"""Self-attention that forward-mode derivatives can pass."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from flowmaps.errors import UsageError
from flowmaps.types import Array

Tokens = Float[Array, "b n w"]


class Attention(nn.Module):
    """Self-attention, written out: the fused kernels have no forward-mode derivative. Softmax in float32 or above."""

    heads: int
    dtype: type | None
    kernel_init: nn.initializers.Initializer = nn.linear.default_kernel_init
    """Of the projection that ends it."""

    @nn.compact
    def __call__(self, x: Tokens) -> Tokens:
        width = x.shape[-1]
        if width % self.heads:
            raise UsageError(f"network.heads={self.heads} does not divide a width of {width}")
        qkv = nn.DenseGeneral((3, self.heads, width // self.heads), dtype=self.dtype)(x)
        query, key, value = jnp.moveaxis(qkv, -3, 0)
        scores = jnp.einsum("bqhd,bkhd->bhqk", query * query.shape[-1] ** -0.5, key)
        shares = nn.softmax(scores.astype(jnp.promote_types(scores.dtype, jnp.float32)))
        mixed = jnp.einsum("bhqk,bkhd->bqhd", shares.astype(value.dtype), value)
        return nn.DenseGeneral(width, axis=(-2, -1), dtype=self.dtype, kernel_init=self.kernel_init)(mixed)
