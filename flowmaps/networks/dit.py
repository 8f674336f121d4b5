"""The diffusion transformer (Peebles, Xie 2023, arXiv:2212.09748) with two times: adaLN-zero on (s, t - s, label)."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from flowmaps.errors import UsageError
from flowmaps.networks import embeddings
from flowmaps.networks._attention import Attention
from flowmaps.networks.embeddings import TimeAndLabel, layer_keys, row_dropout
from flowmaps.types import Array, Cond, Keys, Params

Tokens = Float[Array, "b n w"]
Vector = Float[Array, "b w"]


def position_embedding(height: int, width: int, channels: int) -> np.ndarray:
    """Fixed sin-cos embedding of a grid's rows and columns: [height * width, channels], channels divisible by 4."""
    frequencies = 10_000.0 ** -(np.arange(channels // 4) / (channels // 4))
    rows, columns = (g.reshape(-1, 1) * frequencies for g in np.mgrid[:height, :width])
    parts = [np.sin(rows), np.cos(rows), np.sin(columns), np.cos(columns)]
    return np.concatenate(parts, axis=-1)


def modulate(x: Tokens, shift: Vector, scale: Vector) -> Tokens:
    """Layer norm without parameters, then the condition's shift and scale."""
    normed = nn.LayerNorm(use_bias=False, use_scale=False)(x)
    return normed * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    """Attention and a perceptron, each modulated, and gated from zero."""

    heads: int
    mlp_ratio: int
    dropout: float
    dtype: type | None

    @nn.compact
    def __call__(self, x: Tokens, c: Vector, keys: Keys | None) -> Tokens:
        width = x.shape[-1]
        zero = nn.initializers.zeros_init()
        modulation = nn.Dense(6 * width, kernel_init=zero, dtype=self.dtype)(nn.silu(c))
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = jnp.split(modulation, 6, axis=-1)
        attended = Attention(self.heads, self.dtype)(modulate(x, shift_a, scale_a))
        x = x + gate_a[:, None] * row_dropout(attended, self.dropout, layer_keys(keys, 0))
        h = nn.Dense(self.mlp_ratio * width, dtype=self.dtype)(modulate(x, shift_m, scale_m))
        h = nn.Dense(width, dtype=self.dtype)(nn.gelu(h))
        return x + gate_m[:, None] * row_dropout(h, self.dropout, layer_keys(keys, 1))


class Dit(nn.Module):
    """v_{s,t}(x) for images [B, H, W, C]; the body in `dtype`, times and output in float32.

    Raises UsageError where the patches do not fill the image.
    """

    shape: tuple[int, ...]
    num_classes: int
    outputs: int = 1
    """Of several each is like x, and the call gives a tuple of them."""
    guided: bool = False
    """Whether guidance is an input."""
    patch: int = 2
    width: int = 384
    depth: int = 12
    heads: int = 6
    mlp_ratio: int = 4
    dropout: float = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b h w c"],
        s: Float[Array, " b"],
        t: Float[Array, " b"],
        cond: Cond,
        *,
        dropout: Keys | None = None,
    ) -> Float[Array, "b h w c"] | tuple[Float[Array, "b h w c"], ...]:
        batch, height, width, channels = x.shape
        if height % self.patch or width % self.patch:
            raise UsageError(f"{height}x{width} cannot be cut into patches of {self.patch}: set network.patch")
        rows, columns = height // self.patch, width // self.patch
        body = jnp.bfloat16 if self.dtype == "bfloat16" else None  # None: the input's own precision
        c = TimeAndLabel(self.width, self.num_classes, self.guided)(s, t, cond)
        patches = x.reshape(batch, rows, self.patch, columns, self.patch, channels).swapaxes(2, 3)
        h = nn.Dense(self.width, dtype=body)(patches.reshape(batch, rows * columns, -1))
        h = h + position_embedding(rows, columns, self.width)[None].astype(h.dtype)
        for layer in range(self.depth):
            block = Block(self.heads, self.mlp_ratio, self.dropout, body)
            h = block(h, c.astype(h.dtype), layer_keys(dropout, layer))
            self.sow("inside", "blocks", h)
        zero = nn.initializers.zeros_init()
        shift, scale = jnp.split(nn.Dense(2 * self.width, kernel_init=zero)(nn.silu(c)), 2, axis=-1)
        out = modulate(h.astype(c.dtype), shift, scale)
        out = nn.Dense(self.outputs * self.patch**2 * channels, kernel_init=zero)(out)
        out = out.astype(jnp.promote_types(x.dtype, jnp.float32))
        heads = jnp.moveaxis(out.reshape(batch, rows, columns, self.outputs, self.patch, self.patch, channels), 3, 0)
        heads = tuple(head.swapaxes(2, 3).reshape(x.shape) for head in heads)
        return heads[0] if self.outputs == 1 else heads

    def inputs(self) -> tuple:
        """Two example rows."""
        return jnp.zeros((2, *self.shape)), jnp.zeros(2), jnp.ones(2), {}


def last_kernel(params: Params) -> tuple[str, ...]:
    """Where the last layer's kernel is in the parameters."""
    return "Dense_2", "kernel"


def without_end_time(params: Params) -> Params:
    """The parameters with which v_{s,t} is v_{s,s}."""
    return {**params, "TimeAndLabel_0": embeddings.without_end_time(params["TimeAndLabel_0"])}


def with_guidance_input(params: Params, fresh: Params) -> Params:
    """The parameters of a guided network, `fresh` ones of which are given, that at every scale is the unguided one of
    `params`."""
    name = "TimeAndLabel_0"
    return {**params, name: embeddings.with_guidance_input(params[name], fresh[name])}


make = Dit
