"""Parts found by name: a method, network, data set or solver is added by adding its file."""

import ast
import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, get_args, get_origin

from flowmaps.errors import MissingError, UsageError


def check_name(kind: str, name: str, known: Collection[str]) -> None:
    """Raises UsageError with the nearest known name where `name` is not one of `known`."""
    if name not in known:
        near = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
        hint = f"did you mean {near[0]!r}? " if near else ""
        there_are = f"there are {', '.join(sorted(known))}" if known else "there is none"
        raise UsageError(f"unknown {kind} {name!r}: {hint}{there_are}")


def modules(package: ModuleType) -> tuple[str, ...]:
    """The names of the modules in a package: a part is added by adding its file."""
    return tuple(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def load_module(package: ModuleType, kind: str, name: str) -> ModuleType:
    """The module `name` of `package`. Raises UsageError with the nearest name where there is none."""
    check_name(kind, name, modules(package))
    return importlib.import_module(f"{package.__name__}.{name}")


def load_file(kind: str, path: str) -> ModuleType:
    """The module in a user's own file, run once. Raises MissingError where there is no such file."""
    file = Path(path).resolve()
    if not file.is_file():
        raise MissingError(f"{kind} {path!r} is not there: give the path of a Python file, or a name")
    name = str(file)
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, file)
        module = sys.modules[name] = importlib.util.module_from_spec(spec)  # dataclasses look their module up by name
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]


def options(make: Callable, given: tuple[str, ...] = ()) -> dict[str, Any]:
    """The keyword options of `make` with their defaults, without those that the program gives itself."""
    parameters = inspect.signature(make).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in given and p.default is not p.empty}


def parse_call(kind: str, text: str) -> tuple[str, dict[str, Any]]:
    """A part with options in brackets, "ddim(eta=0.5)" -> ("ddim", {"eta": 0.5}). Raises UsageError."""
    try:
        tree = ast.parse(text, mode="eval").body
        if isinstance(tree, ast.Name):
            return tree.id, {}
        if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and not tree.args:
            return tree.func.id, {k.arg: ast.literal_eval(k.value) for k in tree.keywords}
    except (SyntaxError, ValueError, TypeError):
        pass
    raise UsageError(f"{kind} {text!r} is neither a name nor NAME(OPTION=VALUE, ...)")


def call(kind: str, make: Callable, given: Mapping[str, Any], chosen: Mapping[str, Any]) -> Any:
    """make(**given, **chosen). Raises UsageError as `checked` does."""
    return make(**given, **checked(kind, make, tuple(given), chosen))


def checked(kind: str, make: Callable, given: tuple[str, ...], chosen: Mapping[str, Any]) -> dict[str, Any]:
    """The chosen options, whole numbers made floats where `make` has a float.

    Raises UsageError for an option that `make` does not know, with the nearest one; a value that is not among those of
    a Literal, with the nearest one; or a number, string or tuple where the default is of another of these kinds.
    """
    known, parameters, values = options(make, given), inspect.signature(make).parameters, {}
    for name, value in chosen.items():
        check_name(f"option of {kind}", name, known)
        if get_origin(parameters[name].annotation) is Literal:
            check_name(f"{name} of {kind}", value, get_args(parameters[name].annotation))
        default = known[name]
        if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if default is not None and not isinstance(value, _kind(default)):
            raise UsageError(f"{name} of {kind} is {value!r}, and must be of type {type(default).__name__}")
        items = get_args(parameters[name].annotation)
        if get_origin(parameters[name].annotation) is tuple and Ellipsis not in items and len(value) != len(items):
            raise UsageError(f"{name} of {kind} is {value!r}, and must have {len(items)} items")
        values[name] = value
    return values


def _kind(default: Any) -> tuple[type, ...]:
    return (tuple, list) if isinstance(default, tuple | list) else (type(default),)
