"""Configs of runs that began before their parts had all the options of today.

An option is added with a default by which the part does what it did; so a run that was written down without it is one
of this default, and goes on.
"""

import json
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from flowmaps import adversaries, couplings, data, interpolants, methods, networks, predictions
from flowmaps.errors import MissingError, UsageError

Section = Mapping[str, Any]
PARTS = {
    "coupling": couplings,
    "data": data,
    "interpolant": interpolants,
    "method": methods,
    "network": networks,
    "prediction": predictions,
}
"""Sections that have a name and the options of the part of this name."""
LATER = {"eval": {"classifier": None, "guidance": []}, "guidance": {"weak": None}}
"""Fields of other sections that runs of before lack, with what those did."""


def completed(config: Section) -> dict[str, Any]:
    """A config as JSON has it, with the options that it lacks at their defaults."""
    parts = {name: with_options(package, config[name]) for name, package in PARTS.items() if name in config}
    if "source" in parts.get("data", {}):
        parts["data"]["source"] = with_options(data, parts["data"]["source"])
    players = {
        role: {**section, "network": with_options(networks, section["network"])} if "network" in section else section
        for role, section in config.get("players", {}).items()
    }
    others = {name: fields | config[name] for name, fields in LATER.items() if name in config}
    return {
        **config,
        **others,
        **parts,
        "adversary": plain(adversaries.OPTIONS) | config.get("adversary", {}),
        "players": players,
    }


def with_options(package: ModuleType, section: Section) -> dict[str, Any]:
    """The section of a part, whole; as it is where it names none, or none that there still is."""
    if not section.get("name"):
        return dict(section)
    try:
        return plain(package.options(section["name"])) | section
    except (MissingError, UsageError):
        return dict(section)


def plain(values: Section) -> dict[str, Any]:
    """What JSON can hold of them; an infinity is its name."""
    return json.loads(json.dumps(values, default=str), parse_constant=str)
