"""main.py in processes of its own, in a second each: they are forked from one that has imported it all."""

import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax

ROOT = Path(__file__).parent.parent
TINY = str(ROOT / "tests" / "tiny.py")
PRELOADED = [
    "main",
    "grain",
    "orbax.checkpoint",
    "tensorboardX",
    "flowmaps.plots",
    "scipy.spatial",
    "matplotlib.figure",
]


class Run(NamedTuple):
    """A program that was started, and the files that take its standard output and standard error."""

    process: multiprocessing.process.BaseProcess
    out: Path
    err: Path

    def wait(self, seconds: float = 120) -> int:
        """The exit code, negative for a signal."""
        self.process.join(seconds)
        assert self.process.exitcode is not None, self.err.read_text()
        return self.process.exitcode

    def result(self) -> dict:
        """What the last line of standard output says."""
        return json.loads(self.out.read_text().splitlines()[-1])


def start(*arguments: str, log: Path, devices: int = 1, environment: dict[str, str] | None = None) -> Run:
    """Starts `python main.py ARGUMENTS` with so many virtual devices; its output goes to LOG.out and LOG.err."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    run = Run(
        context.Process(target=_main, args=(arguments, str(log), devices, environment or {}), daemon=True),
        Path(f"{log}.out"),
        Path(f"{log}.err"),
    )
    sys.path.insert(0, str(ROOT))
    run.process.start()
    return run


def wait_for(condition, run: Run, seconds: float = 60) -> None:
    """Returns once the condition holds; fails where the program ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert run.process.is_alive() and time.monotonic() < deadline, run.err.read_text()
        time.sleep(0.002)


def _main(arguments: tuple[str, ...], log: str, devices: int, environment: dict[str, str]) -> None:
    from absl import app

    import main
    from flowmaps import command_line

    for descriptor, ending in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{log}.{ending}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
    os.environ.update(environment)
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_compilation_cache_dir", str(ROOT / ".jax_cache"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    sys.argv = ["main.py", *arguments]
    app.run(main.main, flags_parser=command_line.parse)
