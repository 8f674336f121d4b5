"""The transformer of improved MeanFlow (Geng et al. 2025, arXiv:2512.02012): times, label and guidance are tokens
before the image's, in place of a modulation. Blocks as of language models: RMS norms, normed queries and keys, gated
perceptrons, positions by rotation, here of rows and columns; each block begins as the identity. Outputs share the first
blocks alone.
"""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from flowmaps.errors import UsageError
from flowmaps.networks import embeddings
from flowmaps.networks._patches import axial_angles, grid, to_images, to_tokens
from flowmaps.networks._self_attention import Attention
from flowmaps.networks._transformer import Remat, show, stack, swiglu
from flowmaps.networks.attention import Form
from flowmaps.networks.embeddings import class_index, guidance_numbers, layer_keys, row_dropout, smooth_embedding
from flowmaps.types import Array, Cond, Keys, Params

Row = Float[Array, " b"]
Tokens = Float[Array, "b n w"]
INNER = nn.initializers.variance_scaling(0.32**2, "fan_in", "normal")
"""Of the blocks' kernels."""
FEATURES = 256
"""Of a number that is embedded."""


class Token(nn.Module):
    """So many tokens for one input: learned ones, to each of which the input's embedding is added, a number's or that
    of an index into a table of so many `rows`."""

    count: int
    width: int
    rows: int = 0
    """0: the input is a number."""

    @nn.compact
    def __call__(self, given: Array) -> Tokens:
        unit = nn.initializers.normal(self.width**-0.5)
        learned = self.param("tokens", unit, (self.count, self.width))
        if self.rows:
            embedded = nn.Embed(self.rows, self.width, embedding_init=unit)(given)
        else:
            features = smooth_embedding(given, FEATURES)
            embedded = nn.Dense(self.width)(nn.silu(nn.Dense(self.width)(features)))
        return learned[None] + embedded[:, None]


class Block(nn.Module):
    """Attention and a gated perceptron, of normed tokens and behind gates of zero, without biases."""

    heads: int
    mlp_ratio: float
    dropout: float
    attention: Form
    dtype: type | None

    @nn.compact
    def __call__(self, x: Tokens, angles: Float[np.ndarray, "n half"], keys: Keys | None) -> Tokens:
        shared = {"kernel_init": INNER, "use_bias": False, "dtype": self.dtype}
        attend = Attention(self.heads, reading_init=INNER, qk_norm=True, form=self.attention, **shared)
        x = x + self.gated("attention_gate", attend(nn.RMSNorm(dtype=self.dtype)(x), angles), layer_keys(keys, 0))
        h = swiglu(nn.RMSNorm(dtype=self.dtype)(x), int(self.mlp_ratio * x.shape[-1]), **shared)
        return x + self.gated("perceptron_gate", h, layer_keys(keys, 1))

    def gated(self, name: str, h: Tokens, keys: Keys | None) -> Tokens:
        """Each channel times a learned number."""
        gate = self.param(name, nn.initializers.zeros_init(), (h.shape[-1],))
        return gate.astype(h.dtype)[None, None] * row_dropout(h, self.dropout, keys)


class InContextDit(nn.Module):
    """v_{s,t}(x) for images [B, H, W, C]; the body in `dtype`, times and output in float32.

    Raises UsageError where the patches do not fill the image, or heads are deeper than the network.
    """

    shape: tuple[int, ...]
    num_classes: int
    outputs: int = 1
    """Of several each is like x, and the call gives a tuple of them."""
    guided: bool = False
    """Whether guidance is an input."""
    start_time: bool = True
    """Whether s is an input beside t - s; improved MeanFlow's network has to tell it from x."""
    patch: int = 2
    width: int = 768
    depth: int = 12
    """Blocks on the way to an output."""
    head_depth: int = 8
    """How many of them, the last ones, each output has for itself."""
    heads: int = 12
    """Of attention."""
    mlp_ratio: float = 8 / 3
    attention: Form = "auto"
    """All of its scores at once, or tile after tile in memory linear in the tokens; "auto": by their number."""
    dropout: float = 0.0
    dtype: Literal["float32", "bfloat16"] = "float32"
    remat: Remat = "none"
    """What of a block the backward pass computes anew, to save memory: nothing, all, or all but its matrix products."""
    scan: bool = False
    """Whether the program holds one block for all of a stack, which compiles faster; the parameters are stacked."""

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
        shared = self.depth - self.head_depth
        if shared < 0:
            raise UsageError(
                f"network.head_depth={self.head_depth} exceeds network.depth={self.depth}, of which it is a part"
            )
        body = jnp.bfloat16 if self.dtype == "bfloat16" else None  # None: the input's own precision
        prefix = self.prefix(s, t, cond)
        places = axial_angles(*grid(x, self.patch), self.width // self.heads)
        angles = np.pad(places, ((prefix.shape[1], 0), (0, 0)))  # what is not in the image is not turned
        parts = (self.heads, self.mlp_ratio, self.dropout, self.attention, body)

        def blocks(depth: int, h: Tokens, first: int) -> Tokens:
            saving = {"first": first, "remat": self.remat, "scan": self.scan}
            h, layers = stack(lambda: Block(*parts), depth, h, (angles,), dropout, **saving)
            if first <= shared:  # the way to the first output
                show(self, (layer[:, prefix.shape[1] :] for layer in layers))
            return h

        patches = nn.Dense(self.width, dtype=body, name="patches")(to_tokens(x, self.patch))
        trunk = blocks(shared, jnp.concatenate([prefix.astype(patches.dtype), patches], axis=1), 0)
        images = ()
        for output in range(self.outputs):
            h = blocks(self.head_depth, trunk, shared + output * self.head_depth)[:, prefix.shape[1] :]
            normed = nn.RMSNorm(name=f"norm_{output}")(h.astype(prefix.dtype))
            zero = nn.initializers.zeros_init()
            read = nn.Dense(self.patch**2 * x.shape[-1], kernel_init=zero, name=f"output_{output}")(normed)
            images += to_images(read.astype(jnp.promote_types(x.dtype, jnp.float32)), x, self.patch)
        return images[0] if self.outputs == 1 else images

    def prefix(self, s: Row, t: Row, cond: Cond) -> Tokens:
        """The tokens of all that is given beside x."""
        tokens = []
        if self.num_classes:
            label = class_index(cond, self.num_classes, len(s))
            tokens.append(Token(8, self.width, self.num_classes + 1, name="label")(label))
        if self.guided:
            numbers = guidance_numbers(cond, len(s)).astype(s.dtype)
            for column, (name, count) in enumerate({"scale": 4, "from": 2, "until": 2}.items()):
                tokens.append(Token(count, self.width, name=name)(numbers[:, column]))
        if self.start_time:
            tokens.append(Token(4, self.width, name="start")(s))
        tokens.append(Token(4, self.width, name="duration")(t - s))
        return jnp.concatenate(tokens, axis=1)

    def inputs(self) -> tuple:
        """Two example rows."""
        return jnp.zeros((2, *self.shape)), jnp.zeros(2), jnp.ones(2), {}


def last_kernel(params: Params) -> tuple[str, ...]:
    """Where the first output's last kernel is in the parameters."""
    return "output_0", "kernel"


# There is no `with_guidance_input`: more tokens change what all others attend to, so no start with them is exact.


def without_end_time(params: Params) -> Params:
    """The parameters with which v_{s,t} is v_{s,s}."""
    duration = params["duration"]
    return {**params, "duration": {**duration, "Dense_1": embeddings.held_at_zero(duration["Dense_1"])}}


make = InContextDit
