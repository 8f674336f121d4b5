"""Exponential moving averages of parameters.

An average moves when its parameters were updated and only then, so that a decay means so many updates whatever the
player's period is, and those that were not finite and left out do not count.
"""

from collections.abc import Iterable, Mapping
from typing import TypeVar

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from flowmaps.types import Array, Params

Tree = TypeVar("Tree")


def copy(params: Tree) -> Tree:
    """The same numbers in buffers of their own: a donated state must not hold an array twice."""
    return jax.tree.map(jnp.copy, params)


def start(params: Params, decays: Iterable[float]) -> dict[str, Params]:
    """One average for each decay in [0, 1), by the decay's name ("0.999"), starting from the parameters."""
    return {str(decay): copy(params) for decay in decays}


def warm(decay: float, n: Int[Array, ""]) -> Float[Array, ""]:
    """min(decay, (1 + n) / (10 + n)) after n updates: a young average forgets its start quickly."""
    n = n.astype(jnp.result_type(float))
    return jnp.minimum(decay, (1 + n) / (10 + n))


def mix(average: Tree, params: Tree, decay: Float[Array, ""] | float) -> Tree:
    """decay * average + (1 - decay) * params, which leaves an average equal to the parameters as it is."""
    return jax.tree.map(lambda a, p: a + (1 - jnp.asarray(decay, a.dtype)) * (p - a), average, params)


def update(averages: Mapping[str, Params], params: Params, n: Int[Array, ""]) -> dict[str, Params]:
    """All averages after update number `n` of the parameters, counted from 0."""
    return {name: mix(average, params, warm(float(name), n)) for name, average in averages.items()}
