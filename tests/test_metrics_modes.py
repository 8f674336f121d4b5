"""The count of modes: exact samples hold all, collapsed ones few, and a mode counts from a tenth of its share on."""

import numpy as np
import pytest

from flowmaps import data, metrics
from flowmaps.metrics import modes


def measure(samples, dataset):
    return metrics.load("modes").compute(samples, dataset, None, 0)


def test_exact_samples_hold_every_mode():
    """A disc of four standard deviations holds 1 - exp(-8) of a Gaussian on the plane, a square all of its part."""
    metric, rings = metrics.load("modes"), data.load("rings")
    floor = metric.floor(rings, 0)
    assert floor["modes"] == 8
    missed = np.exp(-8)
    np.testing.assert_allclose(floor["in_modes"], 1 - missed, atol=4 * (missed / metric.num_samples) ** 0.5)
    assert metric.floor(data.load("checker"), 0) == {"modes": 8, "in_modes": 1}


@pytest.mark.parametrize("kept", [1, 4])
def test_samples_of_some_modes_hold_these(kept):
    rings = data.load("rings")
    x = rings.train.batch(np.arange(20_000))["x1"]
    found = measure(x[np.isin(rings.modes.of(x), np.arange(kept))][:2000], rings)
    assert found == {"modes": kept, "in_modes": 1}


def test_what_lies_between_the_modes_is_in_none():
    """The empty squares, and on the rings the centre."""
    rings, checker = data.load("rings"), data.load("checker")
    assert measure(np.zeros((100, 2)), rings) == {"modes": 0, "in_modes": 0}
    x = checker.train.batch(np.arange(1000))["x1"]
    mirrored = np.concatenate([x[:250], x[:750] * (-1, 1)])
    assert measure(mirrored, checker) == {"modes": 8, "in_modes": 0.25}


def test_a_mode_is_held_from_a_tenth_of_its_share_on():
    """Of 1,000 samples in two modes 50 are a tenth of a half; samples in no mode count among all."""
    held, short = ([0] * 800 + [1] * few + [-1] * (200 - few) for few in (50, 49))
    assert modes.coverage(np.array(held), 2) == {"modes": 2, "in_modes": 0.85}
    assert modes.coverage(np.array(short), 2) == {"modes": 1, "in_modes": 0.849}
