"""What transformers share: a stack of equal blocks, written out or scanned, and a gated perceptron."""

from collections.abc import Callable, Iterable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from flowmaps.networks.embeddings import layer_keys
from flowmaps.types import Array, Keys

Tokens = Float[Array, "b n w"]
Remat = Literal["none", "full", "dots"]
"""What the backward pass computes anew of a block: nothing; all but its input; or all but the products with weights
(of activations with each other, as in attention, none is kept)."""
KEPT = {"full": None, "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable}


def stack(
    make: Callable[[], nn.Module],
    depth: int,
    x: Tokens,
    given: tuple,
    keys: Keys | None,
    *,
    first: int = 0,
    remat: Remat = "none",
    scan: bool = False,
) -> tuple[Tokens, Iterable[Tokens]]:
    """`depth` blocks x -> block(x, *given, keys) one after the other, from inside a Linen module: what comes out, and
    what each of them gives, from the first on. The keys of layer i are those of number `first` + i.

    With `scan` the program holds one block, whose parameters are stacked along their first axis, so that compiling it
    costs the same at any depth.
    """

    def apply(block: nn.Module, x: Tokens, keys: Keys | None) -> Tokens:
        return block(x, *given, keys)

    if remat != "none":
        # Inside of a scan nothing is merged with what is computed anew.
        apply = nn.remat(apply, policy=KEPT[remat], prevent_cse=not scan)
    if not (scan and depth):
        layers = []
        for layer in range(depth):
            x = apply(make(), x, layer_keys(keys, first + layer))
            layers.append(x)
        return x, layers

    def step(block: nn.Module, x: Tokens, layer: Array) -> tuple[Tokens, Tokens]:
        x = apply(block, x, layer_keys(keys, layer))
        return x, x

    over = nn.scan(step, variable_axes={"params": 0}, split_rngs={"params": True})
    x, stacked = over(make(), x, first + jnp.arange(depth))
    return x, stacked


def show(module: nn.Module, layers: Iterable[Tokens]) -> None:
    """Sows each of the layers as "inside"; those of a scan are not taken apart where nobody looks."""
    if module.is_mutable_collection("inside"):
        for layer in layers:
            module.sow("inside", "blocks", layer)


def swiglu(x: Tokens, hidden: int, **options: Any) -> Tokens:
    """A perceptron whose hidden layer is gated by another one (arXiv:2002.05202), in a Linen module; `options` of its
    three dense layers."""
    gate, value = nn.Dense(hidden, **options)(x), nn.Dense(hidden, **options)(x)
    return nn.Dense(x.shape[-1], **options)(nn.silu(gate) * value)
