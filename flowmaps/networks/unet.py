"""The U-Net of DDPM++ as EDM trains it (Song et al. 2021, arXiv:2011.13456; Karras et al. 2022, arXiv:2206.00364, table
7), with two times: blocks of two convolutions, shifted by (s, t - s, label), at sides that halve and double again.
"""

import math
from typing import Literal

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from flowmaps.networks import embeddings
from flowmaps.networks._magnitude import unit
from flowmaps.networks._resize import RESIZE, Images, check_sides
from flowmaps.networks._self_attention import Attention
from flowmaps.networks.attention import Form
from flowmaps.networks.embeddings import TimeAndLabel, layer_keys, row_dropout
from flowmaps.types import Array, Cond, Keys, Params

Vector = Float[Array, "b e"]
ZERO = nn.initializers.zeros_init()


def normed(x: Images) -> Images:
    """Group norm in as many groups as go, at most 32 and of 4 channels or more."""
    channels = x.shape[-1]
    most = max(min(32, channels // 4), 1)
    return nn.GroupNorm(num_groups=max(n for n in range(1, most + 1) if channels % n == 0), epsilon=1e-6)(x)


class Block(nn.Module):
    """Two convolutions beside a skip, modulated between them, the second zero at first; then, perhaps, attention."""

    channels: int
    modulation: str
    dropout: float
    heads: int
    """Of the attention; 0: none."""
    form: Form
    resize: Literal["same", "down", "up"]
    dtype: type | None

    @nn.compact
    def __call__(self, x: Images, c: Vector, keys: Keys | None) -> Images:
        resize = RESIZE[self.resize]
        h = nn.Conv(self.channels, (3, 3), dtype=self.dtype)(resize(nn.silu(normed(x))))
        h = nn.silu(self.modulated(h, nn.silu(c)))
        h = nn.Conv(self.channels, (3, 3), kernel_init=ZERO, dtype=self.dtype)(row_dropout(h, self.dropout, keys))
        skip = resize(x)
        if self.resize != "same" or skip.shape[-1] != self.channels:
            skip = nn.Conv(self.channels, (1, 1), dtype=self.dtype)(skip)
        x = (skip + h) / math.sqrt(2)
        if not self.heads:
            return x
        tokens = normed(x).reshape(x.shape[0], -1, self.channels)
        return (x + Attention(self.heads, self.dtype, ZERO, form=self.form)(tokens).reshape(x.shape)) / math.sqrt(2)

    def modulated(self, h: Images, c: Vector) -> Images:
        """The normed features, shifted by the condition before, or scaled and shifted by it after."""
        if self.modulation == "shift":
            return normed(h + nn.Dense(self.channels, dtype=self.dtype)(c)[:, None, None])
        scale, shift = jnp.split(nn.Dense(2 * self.channels, dtype=self.dtype)(c), 2, axis=-1)
        if self.modulation == "double_norm":
            scale, shift = unit(scale), unit(shift)
        return normed(h) * (1 + scale[:, None, None]) + shift[:, None, None]


class UNet(nn.Module):
    """v_{s,t}(x) for images [B, H, W, C]; the body in `dtype`, times and output in float32.

    Raises UsageError where a side cannot be halved as often as there are resolutions.
    """

    shape: tuple[int, ...]
    num_classes: int
    outputs: int = 1
    """Of several each is like x, and the call gives a tuple of them."""
    guided: bool = False
    """Whether guidance is an input."""
    width: int = 128
    """Channels, times `multipliers` at each resolution from the finest on."""
    multipliers: tuple[int, ...] = (2, 2, 2)
    depth: int = 4
    """Blocks a resolution on the way down; one more on the way up."""
    attention: tuple[int, ...] = (16,)
    """Sides of the images that have attention."""
    attention_form: Form = "auto"
    """All of its scores at once, or tile after tile in memory linear in the pixels; "auto": by their number."""
    heads: int = 1
    modulation: Literal["shift", "scale_shift", "double_norm"] = "shift"
    """By the condition: of DDPM++, of ADM, or ADM's with normed scales and shifts, which keep the derivative in time
    small (sCM, arXiv:2410.11081)."""
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
        check_sides(x, len(self.multipliers))
        body = jnp.bfloat16 if self.dtype == "bfloat16" else None  # None: the input's own precision
        c = TimeAndLabel(4 * self.width, self.num_classes, self.guided)(s, t, cond)
        made = 0

        def block(h: Images, channels: int, resize: str = "same", *, attend: bool = False) -> Images:
            nonlocal made
            made += 1
            heads = self.heads if attend else 0
            apply = Block(channels, self.modulation, self.dropout, heads, self.attention_form, resize, body)
            return apply(h, c.astype(h.dtype), layer_keys(dropout, made))

        levels = range(len(self.multipliers))
        channels = [self.width * m for m in self.multipliers]
        h = nn.Conv(self.width, (3, 3), dtype=body)(x)
        skips = [h]
        for level in levels:
            if level:
                h = block(h, channels[level - 1], "down")
                skips.append(h)
            for _ in range(self.depth):
                h = block(h, channels[level], attend=h.shape[1] in self.attention)
                skips.append(h)
        h = block(block(h, channels[-1], attend=True), channels[-1])
        self.sow("inside", "bottleneck", h)
        for level in reversed(levels):
            if level != levels[-1]:
                h = block(h, channels[level + 1], "up")
            for i in range(self.depth + 1):
                attend = i == self.depth and h.shape[1] in self.attention
                h = block(jnp.concatenate([h, skips.pop()], axis=-1), channels[level], attend=attend)
        out = nn.Conv(self.outputs * x.shape[-1], (3, 3), kernel_init=ZERO)(nn.silu(normed(h.astype(c.dtype))))
        heads = tuple(jnp.split(out.astype(jnp.promote_types(x.dtype, jnp.float32)), self.outputs, axis=-1))
        return heads[0] if self.outputs == 1 else heads

    def inputs(self) -> tuple:
        """Two example rows."""
        return jnp.zeros((2, *self.shape)), jnp.zeros(2), jnp.ones(2), {}


def last_kernel(params: Params) -> tuple[str, ...]:
    """Where the last layer's kernel is in the parameters."""
    return "Conv_1", "kernel"


def without_end_time(params: Params) -> Params:
    """The parameters with which v_{s,t} is v_{s,s}."""
    return {**params, "TimeAndLabel_0": embeddings.without_end_time(params["TimeAndLabel_0"])}


def with_guidance_input(params: Params, fresh: Params) -> Params:
    """The parameters of a guided network, `fresh` ones of which are given, that at every scale is the unguided one of
    `params`."""
    name = "TimeAndLabel_0"
    return {**params, name: embeddings.with_guidance_input(params[name], fresh[name])}


make = UNet
