"""Couplings: how a source sample x0 is drawn for each data sample x1."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Float

from flowmaps import lookup, rows
from flowmaps.types import Array, Keys

Coupling = Callable[[Float[Array, "b *d"], Keys], Float[Array, "b *d"]]
"""(x1, keys) -> x0."""


def independent(*, scale: float = 1.0) -> Coupling:
    """x0 from N(0, scale^2 I), independent of x1."""

    def draw(x1: Float[Array, "b *d"], keys: Keys) -> Float[Array, "b *d"]:
        return scale * rows.normal(keys, x1.shape[1:]).astype(x1.dtype)

    return draw


COUPLINGS = {"independent": independent}


def options(name: str) -> dict[str, Any]:
    """The options of a coupling found by name."""
    lookup.check_name("coupling", name, COUPLINGS)
    return lookup.options(COUPLINGS[name])


def make(name: str, **chosen: Any) -> Coupling:
    """The coupling `name`. Raises UsageError for an unknown name or option."""
    lookup.check_name("coupling", name, COUPLINGS)
    return lookup.call(f"coupling {name}", COUPLINGS[name], {}, chosen)
