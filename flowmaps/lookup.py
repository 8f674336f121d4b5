"""Parts found by name: a method, network, data set or solver is added by adding its file."""

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Collection, Mapping
from types import ModuleType
from typing import Any

from flowmaps.errors import UsageError


def check_name(kind: str, name: str, known: Collection[str]) -> None:
    """Raises UsageError with the nearest known name where `name` is not one of `known`."""
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        raise UsageError(f"unknown {kind} {name!r}: {hint}there are {', '.join(sorted(known))}")


def modules(package: ModuleType) -> tuple[str, ...]:
    """The names of the modules in a package: a part is added by adding its file."""
    return tuple(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def load_module(package: ModuleType, kind: str, name: str) -> ModuleType:
    """The module `name` of `package`. Raises UsageError with the nearest name where there is none."""
    check_name(kind, name, modules(package))
    return importlib.import_module(f"{package.__name__}.{name}")


def options(make: Callable, given: tuple[str, ...] = ()) -> dict[str, Any]:
    """The keyword options of `make` with their defaults, without those that the program gives itself."""
    parameters = inspect.signature(make).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in given and p.default is not p.empty}


def call(kind: str, make: Callable, given: Mapping[str, Any], chosen: Mapping[str, Any]) -> Any:
    """make(**given, **chosen). Raises UsageError with the nearest option where `make` does not know one."""
    known = options(make, tuple(given))
    for name in chosen:
        check_name(f"option of {kind}", name, known)
    return make(**given, **chosen)
