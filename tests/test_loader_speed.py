"""The loader's speed is that of what it is given."""

import json
import time

import numpy as np
import pytest

from flowmaps import data
from flowmaps.errors import UsageError
from scripts import loader_speed


def test_speed_is_examples_over_time(monkeypatch, capsys):
    """Of a loader that takes 10 ms for a batch of 8, without reading ahead: 800 a second, or less on a busy machine."""

    def slow(source, *, batch_size, seed):
        while True:
            time.sleep(0.01)
            yield source.batch(np.arange(batch_size))

    monkeypatch.setattr(data, "loader", slow)
    loader_speed.main(["--data=spirals(arms=3)", "--batch_size=8", "--seconds=0.3"])
    found = json.loads(capsys.readouterr().out)
    assert (found["data"], found["shape"], found["batch_size"]) == ("spirals(arms=3)", [2], 8)
    assert 80 < found["examples_per_second"] <= 800


def test_it_reads_the_loader():
    assert loader_speed.measure("digits", batch_size=64, seconds=0.0)["examples_per_second"] > 0
    with pytest.raises(UsageError, match="unknown option of data 'digits' 'flop'"):
        loader_speed.measure("digits(flop=1)")
