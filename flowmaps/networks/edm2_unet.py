"""EDM2's U-Net (Karras et al. 2024, arXiv:2312.02696, configuration G) with two times. All layers keep magnitudes, and
no parameter but a few gains is free: weights lie on spheres, to which training brings them back after each update, so
that the learning rate is the angle by which they turn.

The end time enters by sines and cosines of t - s that vanish at t = s, times a gain that starts at 0: the diagonal is
EDM2's own network. Times are embedded by the project's smooth frequencies, in place of random ones of up to 2 pi.
"""

import math
from typing import Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from flowmaps.errors import UsageError
from flowmaps.networks import _magnitude as magnitude
from flowmaps.networks._magnitude import CosineAttention, Weights, unit_kernel
from flowmaps.networks._resize import RESIZE, check_sides
from flowmaps.networks.attention import Form
from flowmaps.networks.embeddings import class_index, guidance_numbers, layer_keys, row_dropout, smooth_embedding
from flowmaps.types import Array, Cond, Keys, Params

Images = Float[Array, "b _ _ _"]
Row = Float[Array, " b"]
Vector = Float[Array, "b e"]
RESIDUAL = 0.3
"""The share of a residual branch in its sum."""


def gain(module: nn.Module, name: str) -> Array:
    """A learned factor that starts at 0."""
    return module.param(name, nn.initializers.zeros_init(), ())


class Condition(nn.Module):
    """A vector of mean square 1 for (s, t, label), and for guidance where the network is guided."""

    features: int
    """Of the embedding of a number."""
    width: int
    num_classes: int
    guided: bool

    @nn.compact
    def __call__(self, s: Row, t: Row, cond: Cond) -> Vector:
        h = Weights(self.width, name="start")(self.embedded(s))
        duration = self.embedded(t - s) - self.embedded(jnp.zeros_like(s))
        h = h + gain(self, "duration_gain") * Weights(self.width, name="duration")(duration)
        if self.guided:
            numbers = guidance_numbers(cond, len(s)).astype(s.dtype)
            guidance = jnp.concatenate([self.embedded(number) for number in numbers.T], axis=-1)
            h = h + gain(self, "guidance_gain") * Weights(self.width, name="guidance")(guidance)
        if self.num_classes:
            rows = self.num_classes + 1
            label = jax.nn.one_hot(class_index(cond, self.num_classes, len(s)), rows, dtype=s.dtype)
            h = magnitude.mixed(h, Weights(self.width, name="label")(label * math.sqrt(rows)), 0.5)
        return magnitude.silu(h)

    def embedded(self, number: Row) -> Vector:
        """Of mean square 1, for it holds sine and cosine of the same angles."""
        return math.sqrt(2) * smooth_embedding(number, self.features)


class Block(nn.Module):
    """Two convolutions beside a skip, scaled by the condition between them; then, perhaps, attention. On the way down
    the pixels are normed, on the way up nothing is."""

    channels: int
    way: Literal["down", "up"]
    resize: Literal["same", "down", "up"]
    heads: int
    """Of the attention; 0: none."""
    form: Form
    dropout: float

    @nn.compact
    def __call__(self, x: Images, c: Vector, keys: Keys | None) -> Images:
        x = RESIZE[self.resize](x)
        if self.way == "down":
            x = magnitude.unit(self.widened(x))
        h = Weights(self.channels, 3, name="first")(magnitude.silu(x))
        scale = 1 + gain(self, "gain").astype(c.dtype) * Weights(self.channels, name="scale")(c)
        h = row_dropout(magnitude.silu(h * scale[:, None, None]), self.dropout, keys)
        h = Weights(self.channels, 3, name="second")(h)
        if self.way == "up":
            x = self.widened(x)
        x = magnitude.mixed(x, h, RESIDUAL)
        return magnitude.mixed(x, CosineAttention(self.heads, self.form)(x), RESIDUAL) if self.heads else x

    def widened(self, x: Images) -> Images:
        """x in the block's number of channels."""
        return x if x.shape[-1] == self.channels else Weights(self.channels, name="skip")(x)


class Edm2UNet(nn.Module):
    """v_{s,t}(x) for images [B, H, W, C]; the body in `dtype`, times and output in float32; 0 at the start.

    Raises UsageError where a side cannot be halved as often as there are resolutions, or heads do not fill the channels
    of attention.
    """

    shape: tuple[int, ...]
    num_classes: int
    outputs: int = 1
    """Of several each is like x, and the call gives a tuple of them."""
    guided: bool = False
    """Whether guidance is an input."""
    width: int = 192
    """Channels, times `multipliers` at each resolution from the finest on."""
    multipliers: tuple[int, ...] = (1, 2, 3, 4)
    depth: int = 3
    """Blocks a resolution on the way down; one more on the way up."""
    attention: tuple[int, ...] = (16, 8)
    """Sides of the images that have attention."""
    attention_form: Form = "auto"
    """All of its scores at once, or tile after tile in memory linear in the pixels; "auto": by their number."""
    head_width: int = 64
    """Channels of a head of attention."""
    scale: float = 1.0
    """The data's standard deviation: the network sees and gives numbers of order one."""
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
        levels = range(len(self.multipliers))
        channels = [self.width * m for m in self.multipliers]
        c = Condition(channels[0], max(channels), self.num_classes, self.guided)(s, t, cond)
        body = jnp.bfloat16 if self.dtype == "bfloat16" else c.dtype
        made = 0

        def block(h: Images, width: int, way: str, resize: str = "same", *, attend: bool = False) -> Images:
            nonlocal made
            made += 1
            heads = self.heads(width) if attend else 0
            apply = Block(width, way, resize, heads, self.attention_form, self.dropout)
            return apply(h, c.astype(body), layer_keys(dropout, made))

        ones = jnp.ones_like(x[..., :1])  # stand for a bias
        h = Weights(channels[0], 3, name="input")(jnp.concatenate([x / self.scale, ones], axis=-1).astype(body))
        skips = [h]
        for level in levels:
            if level:
                h = block(h, channels[level - 1], "down", "down")
                skips.append(h)
            for _ in range(self.depth):
                h = block(h, channels[level], "down", attend=h.shape[1] in self.attention)
                skips.append(h)
        h = block(block(h, channels[-1], "up", attend=True), channels[-1], "up")
        self.sow("inside", "bottleneck", h)
        for level in reversed(levels):
            if level != levels[-1]:
                h = block(h, channels[level + 1], "up", "up")
            for _ in range(self.depth + 1):
                joined = magnitude.joined(h, skips.pop())
                h = block(joined, channels[level], "up", attend=h.shape[1] in self.attention)
        out = Weights(self.outputs * x.shape[-1], 3, name="output")(h.astype(c.dtype))
        out = out.astype(jnp.promote_types(x.dtype, jnp.float32))
        gains = self.param("output_gains", nn.initializers.zeros_init(), (self.outputs,))
        heads = tuple(
            self.scale * g * head for g, head in zip(gains, jnp.split(out, self.outputs, axis=-1), strict=True)
        )
        return heads[0] if self.outputs == 1 else heads

    def heads(self, channels: int) -> int:
        """Of attention. Raises UsageError where they do not fill the channels."""
        if channels % self.head_width:
            raise UsageError(f"network.head_width={self.head_width} does not divide a width of {channels}")
        return channels // self.head_width

    @staticmethod
    def project(params: Params) -> Params:
        """The parameters with all weights back on their spheres, which makes no other network of them."""

        def projected(path: tuple, p: Array) -> Array:
            return unit_kernel(p) if path[-1].key == "kernel" else p

        return jax.tree_util.tree_map_with_path(projected, params)

    def inputs(self) -> tuple:
        """Two example rows."""
        return jnp.zeros((2, *self.shape)), jnp.zeros(2), jnp.ones(2), {}


def last_kernel(params: Params) -> tuple[str, ...]:
    """Where the last layer's kernel is in the parameters; its length does not count."""
    return "output", "kernel"


def without_end_time(params: Params) -> Params:
    """The parameters with which v_{s,t} is v_{s,s}."""
    condition = params["Condition_0"]
    return {**params, "Condition_0": {**condition, "duration_gain": jnp.zeros_like(condition["duration_gain"])}}


def with_guidance_input(params: Params, fresh: Params) -> Params:
    """The parameters of a guided network, `fresh` ones of which are given, that at every scale is the unguided one of
    `params`."""
    new = fresh["Condition_0"]
    guidance = {"guidance": new["guidance"], "guidance_gain": jnp.zeros_like(new["guidance_gain"])}
    return {**params, "Condition_0": {**params["Condition_0"], **guidance}}


make = Edm2UNet
