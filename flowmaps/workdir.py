"""What a run says about itself in its workdir, and whether a workdir belongs to a config."""

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from flowmaps import defaults
from flowmaps.errors import UsageError
from flowmaps.files import write_whole

FREE = (
    "compilation_cache",
    "coupling.pairs",
    "data.autoencoder",
    "data.dir",
    "data.path",
    "eval",
    "guidance",
    "mesh",
    "network.attention_form",
    "network.remat",
    "sample",
    "train.accumulate",
    "train.checkpoint_every",
    "train.eval_every",
    "train.keep",
    "train.keep_best",
    "train.keep_period",
    "train.log_every",
    "train.max_skipped",
    "train.steps",
)
"""Fields and sections that may change while a run goes on: its length, how it is watched, evaluated and sampled, how
its network is computed and on which devices, where its data lie (the run knows them by their fingerprint) and what
makes images of them. Any other field would make what is learned another, and the run with it."""

NOTHING = ("absent", None)
"""A field that an earlier version did not have, and one that is not set, are the same."""

PRODUCTS = (
    "checkpoints",
    "config.json",
    "environment.json",
    "eval",
    "metrics.jsonl",
    "pairs",
    "report.html",
    "samples",
    "tensorboard",
    "trajectories",
)
"""All that a run leaves in its workdir, and all that starting it afresh removes."""

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "ml-collections")


def plain(config: ConfigDict) -> dict[str, Any]:
    """The resolved config as what JSON can hold; an infinity is its name."""
    return defaults.plain(config.to_dict())


def check(config: ConfigDict, workdir: str | Path) -> None:
    """Raises UsageError, with the difference, where the workdir belongs to a run of another config."""
    differences = list(_differences(config, Path(workdir)))
    if differences:
        more = f" and {len(differences) - 4} more" if len(differences) > 4 else ""
        raise UsageError(
            f"{workdir} belongs to a run of another config: {', '.join(differences[:4])}{more}; "
            "give the values that it was trained with, or another --workdir, or --overwrite to train it anew"
        )


def goes_on(config: ConfigDict, workdir: str | Path) -> bool:
    """Whether the workdir holds checkpoints of a run of this config."""
    return has_checkpoints(workdir) and not any(_differences(config, Path(workdir)))


def has_checkpoints(workdir: str | Path) -> bool:
    """Whether the workdir holds a finished checkpoint."""
    return newest_step(workdir) > 0


def newest_step(workdir: str | Path) -> int:
    """The step of the newest finished checkpoint; 0 where there is none."""
    return max((int(path.name) for path in (Path(workdir) / "checkpoints").glob("*") if path.name.isdigit()), default=0)


def begin(config: ConfigDict, workdir: str | Path, *, overwrite: bool = False) -> None:
    """Writes config.json and environment.json. With `overwrite`, the run of another config is removed first; that of
    this one goes on, so that the same command may be given again."""
    workdir = Path(workdir)
    if overwrite and any(_differences(config, workdir)):
        _remove(workdir)
    write_whole(workdir / "config.json", json.dumps(plain(config), indent=2) + "\n")
    write_whole(workdir / "environment.json", json.dumps(environment(), indent=2) + "\n")


def environment() -> dict[str, Any]:
    """Versions, devices, the command and the commit."""
    device = jax.devices()[0]
    return {
        "versions": versions(),
        "platform": device.platform,
        "device_kind": device.device_kind,
        "devices": jax.device_count(),
        "processes": jax.process_count(),
        "command": sys.argv,
        "commit": commit(),
    }


@functools.cache
def versions() -> dict[str, str]:
    """Of Python and of the packages that decide the numbers."""
    return {"python": sys.version.split()[0], **{name: metadata.version(name) for name in PACKAGES}}


@functools.cache
def commit() -> str | None:
    """The commit of the code, "-dirty" where it was changed since; None where it is not in a git repository."""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(
            command, cwd=Path(__file__).parent, check=True, capture_output=True, text=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _differences(config: ConfigDict, workdir: Path) -> Iterator[str]:
    """The fields that make it another run, as "field saved -> given"."""
    path = workdir / "config.json"
    if path.exists():
        read = _read(path)
        saved, given, default = (dict(_fields(c)) for c in (read, plain(config), defaults.completed(read)))
        for name in sorted(saved.keys() | given.keys()):
            before, after = saved.get(name, default.get(name, "absent")), given.get(name, "absent")
            nothing = before in NOTHING and after in NOTHING
            if before != after and not nothing and not _is_free(name, after):
                yield f"{name} {before} -> {after}"


def _is_free(name: str, value: Any) -> bool:
    if name == "network.attention" and isinstance(value, str):  # a transformer's form of it: a U-Net's are its sides
        return True
    return any(name == free or name.startswith(f"{free}.") for free in FREE)


def _read(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise UsageError(f"{path} is not readable as JSON ({error}): remove it to go on") from error


def _fields(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in section.items():
        if isinstance(value, Mapping) and value:
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _remove(workdir: Path) -> None:
    for name in PRODUCTS:
        path = workdir / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
