"""Data sets, found by the names of this package's files: `load(name, **options) -> Dataset`.

A data set is a file with `make(**options) -> Dataset`; every option has a default. Everything here is numpy.
"""

import sys
from types import ModuleType
from typing import Any

from flowmaps import lookup
from flowmaps.data._dataset import ENDLESS, Coding, Dataset, Source
from flowmaps.data._images import read_image, to_uint8
from flowmaps.data._loader import Loader, ahead, loader
from flowmaps.data._paired import as_stored, draw, paired
from flowmaps.data._pairs import Pairs, pairs

__all__ = [
    "ENDLESS",
    "Coding",
    "Dataset",
    "Loader",
    "Pairs",
    "Source",
    "ahead",
    "as_stored",
    "draw",
    "load",
    "loader",
    "names",
    "options",
    "paired",
    "pairs",
    "read_image",
    "to_uint8",
]


def load(name: str, **chosen) -> Dataset:
    """The data set `name` with the options `chosen`.

    Raises UsageError for an unknown name, option or value, MissingError for files that are not there.
    """
    return lookup.call(f"data {name!r}", _module(name).make, {}, chosen)


def options(name: str) -> dict[str, Any]:
    """The data set's options and their defaults."""
    return lookup.options(_module(name).make)


def names() -> tuple[str, ...]:
    """All data sets."""
    return lookup.modules(sys.modules[__name__])


def _module(name: str) -> ModuleType:
    return lookup.load_module(sys.modules[__name__], "data set", name)
