"""Methods, found by the names of this package's files: `load(name).make(...) -> Method`."""

import sys
from types import ModuleType
from typing import Any

from flowmaps import lookup

GIVEN = ("interpolant", "total_steps")
"""What the program gives to every `make`; the rest are options."""


def load(name: str) -> ModuleType:
    """The method's module, whose `make(*, interpolant, total_steps, **options)` gives a Method."""
    return lookup.load_module(sys.modules[__name__], "method", name)


def options(name: str) -> dict[str, Any]:
    """The method's options and their defaults."""
    return lookup.options(load(name).make, GIVEN)


def names() -> tuple[str, ...]:
    """All methods."""
    return lookup.modules(sys.modules[__name__])
