"""A trained run as a start or as a teacher: what its own config.json says, and its averaged student."""

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from flowmaps import defaults
from flowmaps.errors import MissingError, UsageError
from flowmaps.types import Params


def named(value: str | None) -> str | None:
    """The workdir that a field of a config names; None where it is not set, or unset on the command line ('', None)."""
    return None if value in (None, "", "None") else value


def read(workdir: Path, field: str) -> ConfigDict:
    """The config of the run in `workdir`, which `field` of a config names. Raises MissingError where there is none."""
    path = workdir / "config.json"
    if not path.is_file():
        raise MissingError(
            f"{field}={str(workdir)!r} is not the workdir of a run: it has no config.json; train that run first, or "
            "name another"
        )
    return restored(json.loads(path.read_text()))


def restored(plain: Mapping[str, Any]) -> ConfigDict:
    """The config that was written as JSON, with the options that its parts have now."""
    return ConfigDict(_restored(defaults.completed(plain)))


def check_same(
    trained: ConfigDict, config: ConfigDict, names: tuple[str, ...], field: str, *, but: tuple[str, ...] = ()
) -> None:
    """Raises UsageError where sections or fields, by dotted name, differ: "field of the run -> here". Those of `but`
    may."""
    own, mine = ({name: _plain(value(c, name)) for name in names} for c in (trained, config))
    found = [f"{name} {before} -> {after}" for name, before, after in _differences(own, mine) if name not in but]
    if found:
        more = f" and {len(found) - 4} more" if len(found) > 4 else ""
        raise UsageError(
            f"{field}={value(config, field)!r} is of another kind: {', '.join(found[:4])}{more}, from that run to this "
            f"one: set these alike, or name another run (--config.{field}= names none)"
        )


def value(config: ConfigDict, name: str) -> Any:
    """The value at "section.name"; "absent" where there is none."""
    for part in name.split("."):
        config = config.get(part, "absent") if isinstance(config, ConfigDict) else "absent"
    return config


def averaged_student(workdir: Path, config: ConfigDict, abstract: Params) -> Params:
    """The first average of the student trained in `workdir`, or its parameters where that run kept no average.

    abstract: the shapes, types and shardings of the student's parameters. Raises MissingError where there is no
    checkpoint that can be read, UsageError where that run's network is another.
    """
    from flowmaps.checkpoints import Checkpoints

    decays = config.train.ema
    item, name = ("ema", str(decays[0])) if decays else ("params", "student")
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        return checkpoints.restore({item: {name: abstract}}, partial=True).state[item][name]


def _plain(found: Any) -> Any:
    return json.loads(found.to_json_best_effort()) if isinstance(found, ConfigDict) else found


def _restored(value: Any) -> Any:
    """JSON's lists as the tuples that they were, and the name of infinity as the number."""
    if isinstance(value, Mapping):
        return {name: _restored(item) for name, item in value.items()}
    if isinstance(value, list):
        return tuple(map(_restored, value))
    return math.inf if value == "Infinity" else value


def _differences(
    saved: Mapping[str, Any], given: Mapping[str, Any], prefix: str = ""
) -> Iterator[tuple[str, Any, Any]]:
    """Dotted names, and the two values."""
    for name in sorted(saved.keys() | given.keys()):
        before, after = saved.get(name, "absent"), given.get(name, "absent")
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            yield from _differences(before, after, f"{prefix}{name}.")
        elif before != after:
            yield f"{prefix}{name}", before, after
