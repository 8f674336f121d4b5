"""A perceptron on flat data, with or without residual connections: the network of planes and small digits."""

import math

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from flowmaps.networks.embeddings import class_index, guidance_numbers, layer_keys, row_dropout
from flowmaps.types import Array, Cond, Keys, Params


class Mlp(nn.Module):
    """v_{s,t}(x) = scale f(x / scale, s, t - s, label), f of `depth` GELU layers of `width`.

    Times enter as they are: on [0, 1] a small network needs no embedding of them, and the raw number is the smoothest.
    """

    shape: tuple[int, ...]
    num_classes: int
    outputs: int = 1
    """Of several each is like x, and the call gives a tuple of them."""
    guided: bool = False
    """Whether guidance is an input."""
    width: int = 128
    depth: int = 4
    residual: bool = False
    """Adds each hidden layer to its input, behind a layer norm; for depth beyond 4 and for digits."""
    scale: float = 1.0
    """The data's standard deviation: the network sees and gives numbers of order one."""
    dropout: float = 0.0

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b *d"],
        s: Float[Array, " b"],
        t: Float[Array, " b"],
        cond: Cond,
        *,
        dropout: Keys | None = None,
    ) -> Float[Array, "b *d"] | tuple[Float[Array, "b *d"], ...]:
        flat = x.reshape(x.shape[0], -1) / self.scale
        inputs = [s[:, None], (t - s)[:, None], flat]
        if self.guided:
            inputs.append(guidance_numbers(cond, x.shape[0]).astype(flat.dtype))
        h = nn.Dense(self.width)(jnp.concatenate(inputs, axis=-1))
        if self.num_classes:
            table = nn.Embed(self.num_classes + 1, self.width, embedding_init=nn.initializers.normal(0.5))
            h = h + table(class_index(cond, self.num_classes, x.shape[0]))
        if not self.residual:
            h = nn.gelu(h)
        for layer in range(self.depth - 1):
            if self.residual:
                update = nn.Dense(self.width)(nn.gelu(nn.Dense(self.width)(nn.LayerNorm()(h))))
                h = h + row_dropout(update, self.dropout, layer_keys(dropout, layer))
            else:
                h = row_dropout(nn.gelu(nn.Dense(self.width)(h)), self.dropout, layer_keys(dropout, layer))
            self.sow("inside", "hidden", h)
        out = self.scale * nn.Dense(self.outputs * math.prod(self.shape))(h)
        heads = tuple(head.reshape(x.shape) for head in jnp.split(out, self.outputs, axis=-1))
        return heads[0] if self.outputs == 1 else heads

    def inputs(self) -> tuple:
        """Two example rows."""
        return jnp.zeros((2, *self.shape)), jnp.zeros(2), jnp.ones(2), {}


def last_kernel(params: Params) -> tuple[str, ...]:
    """Where the last layer's kernel is in the parameters."""
    return f"Dense_{sum(name.startswith('Dense') for name in params) - 1}", "kernel"


def without_end_time(params: Params) -> Params:
    """The parameters with which v_{s,t} is v_{s,s}: the second input, t - s, has no weight."""
    first = params["Dense_0"]
    return {**params, "Dense_0": {**first, "kernel": first["kernel"].at[1].set(0)}}


def with_guidance_input(params: Params, fresh: Params) -> Params:
    """The parameters of a guided network, `fresh` ones of which are given, that at every scale is the unguided one of
    `params`: the inputs of guidance, which come last, have no weight."""
    first, rows = params["Dense_0"], fresh["Dense_0"]["kernel"].shape[0]
    kernel = jnp.pad(first["kernel"], ((0, rows - first["kernel"].shape[0]), (0, 0)))
    return {**params, "Dense_0": {**first, "kernel": kernel}}


make = Mlp
