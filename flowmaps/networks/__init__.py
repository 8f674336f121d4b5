"""Networks, found by the names of this package's files, or a user's own by the path of its file, which ends in .py.

Each file's `make` is a Linen module that knows the shape of its data and the number of their classes, and whose
`inputs()` are example inputs; a module is bound to its parameters to become a plain callable, and losses see nothing
else. Where it has a `project(params)`, each update of the parameters ends with it, such as on spheres.
"""

import inspect
import sys
from collections.abc import Callable
from functools import partial
from types import ModuleType
from typing import Any

import jax
from flax import linen as nn
from jaxtyping import Key

from flowmaps import lookup
from flowmaps.errors import UsageError
from flowmaps.types import Array, Params

GIVEN = ("shape", "num_classes", "outputs", "guided")
"""What the program gives to every network."""
LINEN = ("parent", "name")
"""What Linen adds to every module's arguments."""


def load(name: str) -> ModuleType:
    """The network's file. Raises MissingError where a path has none, UsageError for another name or what makes no
    network."""
    if not name.endswith(".py"):
        lookup.check_name("network", name, names())
        return _module(name)
    module = lookup.load_file("network", name)
    make = getattr(module, "make", None)
    if make is None or not {"shape", "num_classes"} <= set(inspect.signature(make).parameters):
        raise UsageError(
            f"network {name!r} needs a make(shape=..., num_classes=...), a Linen module that has inputs(): see "
            "flowmaps/networks/classifier.py"
        )
    return module


def options(name: str) -> dict[str, Any]:
    """The network's options and their defaults."""
    return lookup.options(load(name).make, GIVEN + LINEN)


def names() -> tuple[str, ...]:
    """All networks."""
    return tuple(n for n in lookup.modules(sys.modules[__name__]) if hasattr(_module(n), "make"))


def make(
    name: str, *, shape: tuple, num_classes: int, outputs: int = 1, guided: bool = False, **chosen: Any
) -> nn.Module:
    """The network `name` for examples of `shape` and `num_classes` classes (0: none), with so many outputs like x, and
    `guided` with guidance as an input. The `shape` of what reads another network's maps is that of each.

    Raises UsageError for an unknown name or option, or a network that has no further outputs or takes no guidance.
    """
    given = {"shape": tuple(shape), "num_classes": num_classes}
    known = lookup.options(load(name).make)
    if outputs > 1:
        if "outputs" not in known:
            raise UsageError(f"network {name!r} has one output, and this method reads {outputs}")
        given["outputs"] = outputs
    if guided:
        if "guided" not in known:
            raise UsageError(f"network {name!r} takes no guidance as an input, and this method gives it")
        given["guided"] = True
    return lookup.call(f"network {name}", load(name).make, given, chosen)


def change(name: str, wanted: str) -> Callable[..., Params]:
    """A function of parameters that the network's file has beside `make`, such as `without_end_time`. Raises UsageError
    where it has none."""
    found = getattr(load(name), wanted, None)
    if found is None:
        raise UsageError(
            f"network {name!r} has no {wanted}, by which a run of another kind is started from: give its file one, as "
            "flowmaps/networks/mlp.py has it"
        )
    return found


@partial(jax.jit, static_argnums=0)
def init(module: nn.Module, key: Key[Array, ""]) -> Params:
    """Fresh parameters, in float32. A module is traced once, however often its shapes are asked for."""
    return module.init(key, *module.inputs())["params"]


def bind(module: nn.Module, params: Params, shown: list[Array] | None = None) -> Callable:
    """The module as a function of its inputs alone: a Velocity, or an extra role such as a log-variance head. It gives
    the module's output, of several the first; all of them, from one evaluation, are its attribute `heads`. What the
    module sows as "inside", under one name its hidden layers from the first on, is appended to `shown` at each call."""

    mutable = [] if shown is None else ["inside"]

    def heads(*inputs: Any, **keywords: Any) -> tuple[Array, ...]:
        out, sown = module.apply({"params": params}, *inputs, mutable=mutable, **keywords)
        if shown is not None:
            shown.extend(jax.tree.leaves(sown))
        return out if isinstance(out, tuple) else (out,)

    def first(*inputs: Any, **keywords: Any) -> Array:
        return heads(*inputs, **keywords)[0]

    first.heads = heads
    return first


def _module(name: str) -> ModuleType:
    return lookup.load_module(sys.modules[__name__], "network", name)
