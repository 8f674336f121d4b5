"""The diffusion transformer (Peebles, Xie 2023, arXiv:2212.09748) with two times: adaLN-zero on (s, t - s, label)."""

from functools import partial
from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from flowmaps.networks import embeddings
from flowmaps.networks._patches import axial_angles, grid, position_embedding, to_images, to_tokens
from flowmaps.networks._self_attention import Attention
from flowmaps.networks._transformer import Remat, show, stack, swiglu
from flowmaps.networks.attention import Form
from flowmaps.networks.embeddings import TimeAndLabel, layer_keys, row_dropout
from flowmaps.types import Array, Cond, Keys, Params

Tokens = Float[Array, "b n w"]
Vector = Float[Array, "b w"]
NORMS = {"layer": partial(nn.LayerNorm, use_bias=False, use_scale=False), "rms": partial(nn.RMSNorm, use_scale=False)}


def modulate(x: Tokens, shift: Vector, scale: Vector, norm: str) -> Tokens:
    """A norm without parameters, then the condition's shift and scale."""
    return NORMS[norm]()(x) * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    """Attention and a perceptron, each modulated, and gated from zero."""

    heads: int
    mlp: str
    mlp_ratio: float
    norm: str
    qk_norm: bool
    dropout: float
    attention: Form
    dtype: type | None

    @nn.compact
    def __call__(self, x: Tokens, c: Vector, angles: Float[np.ndarray, "n half"] | None, keys: Keys | None) -> Tokens:
        width = x.shape[-1]
        zero = nn.initializers.zeros_init()
        modulation = nn.Dense(6 * width, kernel_init=zero, dtype=self.dtype)(nn.silu(c))
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = jnp.split(modulation, 6, axis=-1)
        attention = Attention(self.heads, self.dtype, qk_norm=self.qk_norm, form=self.attention)
        attended = attention(modulate(x, shift_a, scale_a, self.norm), angles)
        x = x + gate_a[:, None] * row_dropout(attended, self.dropout, layer_keys(keys, 0))
        h = self.perceptron(modulate(x, shift_m, scale_m, self.norm))
        return x + gate_m[:, None] * row_dropout(h, self.dropout, layer_keys(keys, 1))

    def perceptron(self, h: Tokens) -> Tokens:
        """Of one hidden layer, of GELU or gated."""
        width, hidden = h.shape[-1], int(self.mlp_ratio * h.shape[-1])
        if self.mlp == "swiglu":
            return swiglu(h, hidden, dtype=self.dtype)
        h = nn.Dense(hidden, dtype=self.dtype)(h)  # constructed first, which Linen names and draws it by
        return nn.Dense(width, dtype=self.dtype)(nn.gelu(h))


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
    mlp_ratio: float = 4.0
    """Of the perceptrons' hidden layers to the width; 8 / 3 of gated ones costs as much as 4 of the others."""
    mlp: Literal["gelu", "swiglu"] = "gelu"
    norm: Literal["layer", "rms"] = "layer"
    qk_norm: bool = False
    """Bounds the scores of attention by a norm of queries and keys."""
    positions: Literal["sincos", "rotary"] = "sincos"
    """Added to the patches once, or turning queries and keys of each attention."""
    attention: Form = "auto"
    """All of its scores at once, or tile after tile in memory linear in the patches; "auto": by their number."""
    dropout: float = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Remat = "none"
    """What of a block the backward pass computes anew, to save memory: nothing, all, or all but its matrix products."""
    scan: bool = False
    """Whether the program holds one block for all, which compiles faster; the parameters are stacked."""

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
        body = jnp.bfloat16 if self.dtype == "bfloat16" else None  # None: the input's own precision
        c = TimeAndLabel(self.width, self.num_classes, self.guided)(s, t, cond)
        places, angles = grid(x, self.patch), None
        h = nn.Dense(self.width, dtype=body)(to_tokens(x, self.patch))
        if self.positions == "sincos":
            h = h + position_embedding(*places, self.width)[None].astype(h.dtype)
        else:
            angles = axial_angles(*places, self.width // self.heads)
        parts = (self.heads, self.mlp, self.mlp_ratio, self.norm, self.qk_norm, self.dropout, self.attention, body)
        given = (c.astype(h.dtype), angles)
        h, layers = stack(lambda: Block(*parts), self.depth, h, given, dropout, remat=self.remat, scan=self.scan)
        show(self, layers)
        zero = nn.initializers.zeros_init()
        shift, scale = jnp.split(nn.Dense(2 * self.width, kernel_init=zero)(nn.silu(c)), 2, axis=-1)
        out = modulate(h.astype(c.dtype), shift, scale, self.norm)
        out = nn.Dense(self.outputs * self.patch**2 * x.shape[-1], kernel_init=zero)(out)
        images = to_images(out.astype(jnp.promote_types(x.dtype, jnp.float32)), x, self.patch)
        return images[0] if self.outputs == 1 else images

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
