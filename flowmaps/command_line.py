"""The command line: each mistake in it, and each failure that a user can mend, becomes one line and an exit code."""

import errno
import importlib.util
import inspect
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from logging import ERROR, WARNING, LogRecord
from pathlib import Path
from types import ModuleType
from typing import Any

import jax
from absl import flags, logging
from ml_collections import ConfigDict

from flowmaps import lookup, processes
from flowmaps import workdir as runs
from flowmaps.errors import MissingError, NonFiniteError, UsageError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What systems call a full disk, and a full share of one."""
DEVICES = "/dev"
"""Where a machine lists its GPUs: those of a container's host that it may not use are not there."""


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Prints an error of flowmaps.errors on standard error, without a traceback, and exits with its code; so Ctrl-C,
    with the code of shells, 130, and of several processes one whose computation with the others failed."""
    try:
        yield
    except (UsageError, MissingError, NonFiniteError) as error:
        sys.stderr.write(f"{error}\n")
        processes.leave(error.exit_code)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted: the same command goes on from the last checkpoint\n")
        processes.leave(128 + signal.SIGINT)
    except Exception as error:
        if isinstance(error, OSError) and error.errno in FULL:
            sys.stderr.write(f"{no_room(error)}\n")
            processes.leave(UsageError.exit_code)
        if not jax.distributed.is_initialized():
            raise
        cause = str(error).partition("\n")[0].rpartition("computation: ")[2]
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in cause:
            sys.stderr.write(
                f"process {jax.process_index()}: a computation of all processes failed ({cause}): where another one "
                "ended, its log says why; the same command goes on from the last checkpoint\n"
            )
        else:
            traceback.print_exc()
        processes.leave(processes.FAILED)


def no_room(error: OSError) -> str:
    """What a full disk means for a run."""
    where = f" at {error.filename}" if error.filename else ""
    return f"no room is left on the disk{where}: make some and give the same command again; nothing unfinished counts"


def check_usage(given: flags.FlagValues, arguments: Sequence[str]) -> None:
    """Raises UsageError where the mode lacks what it needs, or was given what it cannot use."""
    if given.mode == "compare":
        if given.config is not None or not given.workdir or arguments[1:]:
            raise UsageError(
                "usage: python main.py --mode=compare --workdir=RUN,RUN,... [--output=...], and no --config"
            )
    elif given.config is None or arguments[1:]:
        raise UsageError("usage: python main.py --config=configs/NAME.py [--mode=...] [--workdir=...]")


def begin(given: flags.FlagValues) -> None:
    """What comes before anything computes. Raises UsageError where there are others to join and no cluster, or a GPU
    that jax does not see."""
    quiet_libraries()
    if given.config is not None:
        keep_compiled(given.config.compilation_cache)
    processes.start(given.distributed, given.distributed_timeout)
    check_platform()


def keep_compiled(folder: str) -> None:
    """Has jax keep in `folder` what it compiles, and find it there; "": nowhere. A folder that jax was told before
    (JAX_COMPILATION_CACHE_DIR) stays."""
    if folder and not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(Path(folder).expanduser()))


def check_platform() -> None:
    """Raises UsageError where jax would compute on the CPU beside an NVIDIA GPU and nobody has asked for it."""
    unasked = jax.default_backend() == "cpu" and not jax.config.jax_platforms
    if unasked and (devices := sorted(Path(DEVICES).glob("nvidia[0-9]*"))):
        raise UsageError(
            f"there is an NVIDIA GPU ({devices[0]}) that this jax does not see: pip install 'jax[cuda13]', or say "
            "JAX_PLATFORMS=cpu before the command to compute on the CPU"
        )


def check_trained(workdir: str | Path, arguments: Sequence[str]) -> None:
    """Raises MissingError where the workdir has no checkpoint, with the command that makes one of `arguments`."""
    if not runs.has_checkpoints(workdir):
        raise MissingError(f"no checkpoint in {workdir}: train first, with {training_command(arguments)}")


def training_command(arguments: Sequence[str]) -> str:
    """The command line with these arguments, the program's name first, in the mode that trains."""
    return "python" + re.sub(r" --?mode[= ]\S+", "", f" {shlex.join(arguments)}") + " --mode=train"


def quiet_libraries() -> None:
    """Leaves the log to this program and to warnings; of orbax, which warns of what is meant, to errors."""
    ours = str(Path(__file__).parent)

    def wanted(record: LogRecord) -> bool:
        least = ERROR if "orbax" in record.pathname else WARNING
        return record.levelno >= least or record.pathname.startswith(ours)

    logging.get_absl_handler().addFilter(wanted)


def parse(arguments: Sequence[str]) -> list[str]:
    """What is left of the command line once absl has read its flags, --config and its fields among them.

    Exits with one line where there is no such config, field (it names the nearest) or flag, and where a value is of
    another type than its field (it names the right one).
    """
    with one_line_errors():
        config = default_config(arguments)
        fields = overridden(arguments) if config else []
        for field in fields:
            check_field(config, field)
        try:
            rest = flags.FLAGS(list(arguments))
        except flags.Error as error:
            raise UsageError(explain(str(error), config, fields)) from error
        for field in fields:
            check_items(field, value(config, field), value(flags.FLAGS.config, field))
    return rest


def default_config(arguments: Sequence[str]) -> ConfigDict | None:
    """The config of --config=FILE[:VARIANT], before any of its fields is set; None where there is no such flag."""
    named = re.search(r"\s--?config[=\s](\S+)", " ".join(arguments))
    if not named:
        return None
    file, _, variant = named[1].partition(":")
    path = Path(file)
    if not path.is_file():
        lookup.check_name("config", str(path), [str(p) for p in path.parent.glob("[!_]*.py")])
    get_config = _load(path).get_config
    if variant and not inspect.signature(get_config).parameters:
        raise UsageError(f"config {file} has no variants: leave out ':{variant}'")
    return get_config(variant) if variant else get_config()


def overridden(arguments: Sequence[str]) -> list[str]:
    """The fields that the command line sets, such as "train.steps"."""
    matches = (re.match(r"--?(?:no)?config\.([^=]*)", argument) for argument in arguments)
    return [match[1] for match in matches if match]


def value(config: ConfigDict, field: str) -> Any:
    """The value at "section.name"."""
    section, _, name = field.rpartition(".")
    return (value(config, section) if section else config)[name]


def check_field(config: ConfigDict, field: str) -> None:
    """Raises UsageError where the config has no such field, with the nearest name, or where it is a whole section."""
    place, section = "config", config
    for name in field.split("."):
        if not isinstance(section, ConfigDict):
            raise UsageError(f"unknown field config.{field}: {place} is a value and has no fields")
        lookup.check_name(f"field of {place}", name, list(section.keys()))
        place, section = f"{place}.{name}", section[name]
    if isinstance(section, ConfigDict):
        raise UsageError(f"{place} is a section: set its fields, {', '.join(section.keys()) or 'of which it has none'}")


def check_items(field: str, default: Any, given: Any) -> None:
    """Raises UsageError where a tuple was given items of another type than those it has by default."""
    if isinstance(default, tuple) and default:
        kind = type(default[0])
        accepted = (int, float) if kind is float else (kind,)
        judged = given[:1] if kind is str else given  # a law of times: its name, then its numbers
        wrong = [item for item in judged if type(item) not in accepted]
        if wrong:
            raise UsageError(
                f"--config.{field}: {wrong[0]!r} is not of type {kind.__name__}; it is {default} by default"
            )


def explain(message: str, config: ConfigDict | None, fields: Sequence[str]) -> str:
    """absl's message in one line, with the type of the field that it is about."""
    line = message.splitlines()[0]
    found = re.match(r"flag --config\.([\w.]+)=(.*?): ", message)
    if config is None or not found or found[1] not in fields:
        return line
    section, _, name = found[1].rpartition(".")
    kind = (value(config, section) if section else config).get_type(name).__name__
    return f"--config.{found[1]}: {found[2]!r} is not of type {kind}; it is {value(config, found[1])!r} by default"


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
