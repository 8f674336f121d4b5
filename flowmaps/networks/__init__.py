"""Networks, found by the names of this package's files. Each file's `make` is a Linen module that knows the shape of
its data; a module is bound to its parameters to become a plain callable, and losses see nothing else.
"""

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from flax import linen as nn
from jaxtyping import Key

from flowmaps import lookup
from flowmaps.types import Array, Params

GIVEN = ("shape", "num_classes")
"""What the program gives to every network."""
LINEN = ("parent", "name")
"""What Linen adds to every module's arguments."""


def load(name: str) -> ModuleType:
    """The network's file."""
    return lookup.load_module(sys.modules[__name__], "network", name)


def options(name: str) -> dict[str, Any]:
    """The network's options and their defaults."""
    return lookup.options(load(name).make, GIVEN + LINEN)


def names() -> tuple[str, ...]:
    """All networks."""
    return tuple(n for n in lookup.modules(sys.modules[__name__]) if hasattr(load(n), "make"))


def make(name: str, *, shape: tuple[int, ...], num_classes: int, **chosen: Any) -> nn.Module:
    """The network `name` for examples of `shape` and `num_classes` classes (0: none). Raises UsageError."""
    given = {"shape": tuple(shape), "num_classes": num_classes}
    return lookup.call(f"network {name}", load(name).make, given, chosen)


def init(module: nn.Module, key: Key[Array, ""]) -> Params:
    """Fresh parameters, in float32."""
    return module.init(key, *module.inputs())["params"]


def bind(module: nn.Module, params: Params) -> Callable:
    """The module as a function of its inputs alone: a Velocity, or an extra role such as a log-variance head."""

    def apply(*inputs: Any, **keywords: Any) -> Array:
        return module.apply({"params": params}, *inputs, **keywords)

    return apply
