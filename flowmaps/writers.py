"""Where the numbers of a run go: metrics.jsonl, tensorboard/, and a progress bar or lines in the log."""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from io import TextIOBase
from pathlib import Path
from typing import Any, NamedTuple, SupportsFloat

import numpy as np
from absl import logging
from jaxtyping import UInt8

from flowmaps.files import write_whole

Scalars = Mapping[str, SupportsFloat]


class Writer:
    """Appends to metrics.jsonl (one JSON object a line, "step" first, null for a number that is not finite) and to
    tensorboard/. What an interrupted run had written of steps after `step` is taken back, as they come again.

    Of several processes only the one with `active` writes.
    """

    def __init__(self, workdir: str | Path, *, step: int = 0, active: bool = True):
        self._active = active
        if active:
            path = Path(workdir) / "metrics.jsonl"
            keep_until(path, step)
            self._lines = path.open("a")
            self._board = _board(str(Path(workdir) / "tensorboard"), step)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def scalars(self, step: int, values: Scalars) -> None:
        """Writes numbers by name at a step."""
        if self._active:
            numbers = {name: float(value) for name, value in values.items()}
            finite = {name: value if math.isfinite(value) else None for name, value in numbers.items()}
            self._lines.write(json.dumps({"step": step, **finite}) + "\n")
            self._lines.flush()
            self._board.scalars(step, numbers)

    def images(self, step: int, pictures: Mapping[str, UInt8[np.ndarray, "height width 3"]]) -> None:
        """Writes pictures by name at a step, to tensorboard alone."""
        if self._active:
            self._board.images(step, pictures)

    def close(self) -> None:
        """Closes the files."""
        if self._active:
            self._lines.close()
            self._board.close()


class Progress:
    """How far a run is and how long it will take: a bar where `stream` (standard error) is a terminal, otherwise
    lines in the log."""

    def __init__(self, step: int, total: int, *, stream: TextIOBase | None = None, active: bool = True):
        self._total = total
        self._since = (step, time.monotonic())
        self._active = active
        stream = stream or sys.stderr
        self._bar = _bar(step, total, stream) if active and stream.isatty() else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self) -> None:
        """One step is done."""
        if self._bar is not None:
            self._bar.update()

    def speed(self, step: int) -> float:
        """Steps a second since the last call."""
        (before, then), self._since = self._since, (step, time.monotonic())
        return (step - before) / max(self._since[1] - then, 1e-9)

    def report(self, step: int, values: Scalars, speed: float) -> None:
        """Shows the numbers of a step, the speed and the time left."""
        shown = {name: f"{value:.4g}" for name, value in values.items()}
        if self._bar is not None:
            self._bar.set_postfix(shown, refresh=False)
        elif self._active:
            left = timedelta(seconds=round((self._total - step) / speed)) if speed > 0 else "unknown"
            numbers = ", ".join(f"{name} {value}" for name, value in shown.items())
            logging.info("step %d of %d: %s; %.4g steps/s, %s left", step, self._total, numbers, speed, left)


def keep_until(path: Path, step: int) -> None:
    """Takes the lines of later steps, and a last line cut short, out of a file of JSON lines."""
    if path.exists():
        kept = [line for line in path.read_text().splitlines() if _step(line) <= step]
        write_whole(path, "".join(f"{line}\n" for line in kept))


def _step(line: str) -> int | float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf


def _bar(step: int, total: int, stream: TextIOBase) -> Any:
    from tqdm import tqdm

    return tqdm(initial=step, total=total, unit="step", dynamic_ncols=True, file=stream)


class _Board(NamedTuple):
    scalars: Callable[[int, Scalars], None]
    images: Callable[[int, Mapping[str, np.ndarray]], None]
    close: Callable[[], None]


def _board(directory: str, step: int) -> _Board:
    """clu's writer of event files where TensorFlow is installed, tensorboardX's otherwise."""
    try:
        from clu.metric_writers import SummaryWriter
    except ImportError:
        return _tensorboardx(directory, step)
    writer = SummaryWriter(directory)

    def scalars(step: int, values: Scalars) -> None:
        writer.write_scalars(step, values)
        writer.flush()

    def images(step: int, pictures: Mapping[str, np.ndarray]) -> None:
        writer.write_images(step, {name: picture[None] for name, picture in pictures.items()})

    return _Board(scalars, images, writer.close)


def _tensorboardx(directory: str, step: int) -> _Board:
    from tensorboardX import SummaryWriter

    writer = SummaryWriter(directory, purge_step=step + 1)

    def scalars(step: int, values: Scalars) -> None:
        for name, value in values.items():
            writer.add_scalar(name, value, step)
        writer.flush()

    def images(step: int, pictures: Mapping[str, np.ndarray]) -> None:
        for name, picture in pictures.items():
            writer.add_image(name, picture, step, dataformats="HWC")

    return _Board(scalars, images, writer.close)
