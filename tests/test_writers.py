"""What a run writes down: exact lines, nothing twice after a restart, and the time left."""

import io
import json
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
from absl import logging

from flowmaps import writers
from flowmaps.writers import Progress, Writer


def lines(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def events(workdir: Path) -> list:
    """The tensorboard events: records of length, checksum, message, checksum."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted((workdir / "tensorboard").iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            found.append(Event.FromString(content[12 : 12 + length]))
            content = content[16 + length :]
    return found


def test_scalars_are_in_both_places(tmp_path):
    with Writer(tmp_path) as writer:
        writer.scalars(3, {"loss": 0.25, "kl/1": np.float32(2)})
        writer.scalars(4, {"loss": float("nan")})
    assert lines(tmp_path) == [{"step": 3, "loss": 0.25, "kl/1": 2.0}, {"step": 4, "loss": None}]
    values = [(e.step, v.tag, v.simple_value) for e in events(tmp_path) for v in e.summary.value]
    assert values[:2] == [(3, "loss", 0.25), (3, "kl/1", 2.0)]


def test_pictures_are_in_tensorboard(tmp_path):
    from PIL import Image

    picture = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    with Writer(tmp_path) as writer:
        writer.images(7, {"samples": picture})
    ((step, value),) = [(e.step, v) for e in events(tmp_path) for v in e.summary.value]
    assert (step, value.tag) == (7, "samples")
    shown = Image.open(io.BytesIO(value.image.encoded_image_string))
    np.testing.assert_array_equal(np.asarray(shown), picture)


def test_clu_writes_where_it_can(tmp_path, monkeypatch):
    calls = []
    board = types.SimpleNamespace(
        write_scalars=lambda step, values: calls.append((step, values)),
        write_images=lambda step, pictures: calls.append((step, {name: p.shape for name, p in pictures.items()})),
        flush=lambda: calls.append("flush"),
        close=lambda: calls.append("close"),
    )
    module = types.ModuleType("clu.metric_writers")
    module.SummaryWriter = lambda directory: board
    monkeypatch.setitem(sys.modules, "clu.metric_writers", module)
    with Writer(tmp_path) as writer:
        writer.scalars(1, {"loss": 0.5})
        writer.images(1, {"samples": np.zeros((4, 5, 3), np.uint8)})
    assert calls == [(1, {"loss": 0.5}), "flush", (1, {"samples": (1, 4, 5, 3)}), "close"]


def test_a_restart_takes_back_the_steps_that_come_again(tmp_path):
    with Writer(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.scalars(step, {"loss": step})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')
    with Writer(tmp_path, step=2) as writer:
        writer.scalars(3, {"loss": 30})
    assert [(line["step"], line["loss"]) for line in lines(tmp_path)] == [(1, 1.0), (2, 2.0), (3, 30.0)]


def test_only_the_active_process_writes(tmp_path):
    with Writer(tmp_path, active=False) as writer:
        writer.scalars(1, {"loss": 1.0})
        writer.images(1, {"samples": np.zeros((2, 2, 3), np.uint8)})
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is moved."""
    now = types.SimpleNamespace(time=100.0)
    monkeypatch.setattr(writers.time, "monotonic", lambda: now.time)
    return now


def test_a_log_file_gets_speed_and_time_left(clock, monkeypatch):
    said = []
    monkeypatch.setattr(logging, "info", lambda text, *values: said.append(text % values))
    with Progress(100, 1000, stream=io.StringIO()) as progress:
        clock.time += 2.0
        speed = progress.speed(200)
        progress.report(200, {"loss": 0.123456}, speed)
    assert speed == 50.0
    assert said == ["step 200 of 1000: loss 0.1235; 50 steps/s, 0:00:16 left"]


def test_a_terminal_gets_a_bar_and_no_lines(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "info", lambda *text: said.append(text))
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    with Progress(2, 4, stream=terminal) as progress:
        progress.report(2, {"loss": 0.5}, 1.0)
        progress.advance()
        progress.advance()
    assert "4/4" in terminal.getvalue() and "loss=0.5" in terminal.getvalue()
    assert said == []
