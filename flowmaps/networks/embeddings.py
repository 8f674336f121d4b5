"""Embeddings of times and labels, and dropout whose mask belongs to the row."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float, Int

from flowmaps import rows
from flowmaps.types import Array, Cond, Keys, Params

Row = Float[Array, " b"]


def smooth_embedding(t: Row, width: int, max_frequency: float = 8.0) -> Float[Array, "b w"]:
    """sin and cos of t at width / 2 frequencies, geometric from 1/4 to `max_frequency` radians per unit of time.

    Times are never multiplied by 1000 here: the tangent of a jvp in t grows with the highest frequency.
    """
    frequencies = jnp.geomspace(0.25, max_frequency, width // 2, dtype=t.dtype)
    angles = t[:, None] * frequencies[None]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def class_index(cond: Cond, num_classes: int, batch: int) -> Int[Array, " b"]:
    """The label's row in a table of num_classes + 1 embeddings; the last one stands for no label."""
    label = cond.get("label", jnp.full((batch,), -1, jnp.int32))
    return jnp.where(label < 0, num_classes, label)


def row_dropout(x: Float[Array, "b *d"], rate: float, keys: Keys | None) -> Float[Array, "b *d"]:
    """Dropout with one mask a row, drawn from the row's key; the identity without keys or rate."""
    if keys is None or rate == 0:
        return x
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - rate), 0)


def layer_keys(keys: Keys | None, layer: Array | int) -> Keys | None:
    """The keys of one layer's dropout."""
    return None if keys is None else rows.fold(keys, layer)


def guidance_numbers(cond: Cond, batch: int) -> Float[Array, "b 3"]:
    """1 - 1 / scale and the interval's ends: three numbers of order one, 0, 0 and 1 where there is no guidance."""
    scale = cond.get("guidance", jnp.ones(batch))
    interval = cond.get("interval", jnp.broadcast_to(jnp.asarray([0.0, 1.0], scale.dtype), (batch, 2)))
    return jnp.concatenate([1 - 1 / scale[:, None], interval], axis=-1)


class TimeAndLabel(nn.Module):
    """A vector for (s, t, label): smooth embeddings of s and t - s, through a small network, plus the label's, and the
    guidance's where the network is guided."""

    width: int
    num_classes: int
    guided: bool = False

    @nn.compact
    def __call__(self, s: Row, t: Row, cond: Cond) -> Float[Array, "b w"]:
        times = jnp.concatenate([smooth_embedding(s, self.width), smooth_embedding(t - s, self.width)], axis=-1)
        h = nn.Dense(self.width)(nn.silu(nn.Dense(self.width)(times)))
        if self.num_classes:
            table = nn.Embed(self.num_classes + 1, self.width, embedding_init=nn.initializers.normal(0.02))
            h = h + table(class_index(cond, self.num_classes, s.shape[0]))
        if self.guided:
            numbers = guidance_numbers(cond, s.shape[0]).astype(s.dtype)
            h = h + nn.Dense(self.width)(nn.silu(nn.Dense(self.width)(numbers)))
        return h


def held_at_zero(layer: Params, first: int = 0) -> Params:
    """The parameters of a dense layer, whose inputs from `first` on are the smooth embedding of a time, that for any
    time gives what it gave for 0: sines and cosines lose their weights, and the bias gains what the cosines gave."""
    kernel = layer["kernel"]
    cosines = kernel[(first + kernel.shape[0]) // 2 :]
    return {"kernel": kernel.at[first:].set(0), "bias": layer["bias"] + cosines.sum(0)}


def without_end_time(params: Params) -> Params:
    """The parameters of TimeAndLabel with which (s, t, label) has the vector of (s, s, label)."""
    layer = params["Dense_1"]  # Linen numbers by construction, and the outer layer is constructed first
    return {**params, "Dense_1": held_at_zero(layer, layer["kernel"].shape[0] // 2)}


def with_guidance_input(params: Params, fresh: Params) -> Params:
    """The parameters of a guided TimeAndLabel that at every scale gives what the unguided one of `params` does: the
    second layer of the guidance's network has no weight. Its first is the fresh one's, without which neither learns."""
    return {**params, "Dense_2": jax.tree.map(jnp.zeros_like, fresh["Dense_2"]), "Dense_3": fresh["Dense_3"]}
