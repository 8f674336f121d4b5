"""Distances between features that a user brings."""

import json

import numpy as np
import pytest

from flowmaps.errors import MissingError, UsageError
from flowmaps.metrics import _distances, kernel
from scripts import feature_distances


def write(path, features):
    np.savez(path, features=features)
    return path


def test_cmmd_equals_a_double_loop(monkeypatch):
    monkeypatch.setattr(_distances, "BLOCK_ENTRIES", 50)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(13, 4)), rng.normal(size=(9, 4)) + 1

    def k(a, b):
        a, b = a / np.sqrt(np.sum(a**2)), b / np.sqrt(np.sum(b**2))
        return np.exp(-np.sum((a - b) ** 2) / 200)

    def mean(z, w):
        return np.mean([k(a, b) for a in z for b in w])

    expected = 1000 * (mean(x, x) + mean(y, y) - 2 * mean(x, y))
    assert expected > 0.1
    assert kernel.cmmd(x, y) == pytest.approx(expected, rel=1e-8)


def test_cmmd_of_two_directions_is_in_closed_form():
    """Every row at one of two unit vectors: 2 (1 - exp(-|a - b|^2 / 200)), whatever the lengths of the rows."""
    x, y = np.outer(np.arange(1.0, 4), [1.0, 0, 0]), np.outer(np.arange(2.0, 9), [0, 1.0, 0])
    assert kernel.cmmd(x, y) == pytest.approx(2000 * (1 - np.exp(-2 / 200)), rel=1e-10)
    assert kernel.cmmd(x, 5 * x) == pytest.approx(0, abs=1e-9)


def test_the_script_prints_both_distances(tmp_path, capsys):
    x = np.random.default_rng(0).normal(size=(30, 4))
    a, b = write(tmp_path / "a.npz", x.astype(np.float32)), write(tmp_path / "b.npz", x.astype(np.float32) + 2)
    feature_distances.main([str(a), str(b)])
    found = json.loads(capsys.readouterr().out)
    assert found["fd"] == pytest.approx(16, rel=1e-6)
    assert found["cmmd"] > 0 and (found["num_samples"], found["num_reference"]) == (30, 30)
    assert feature_distances.measure(a, a)["fd"] < 1e-6


def test_features_that_do_not_compare_are_refused_in_one_line(tmp_path, capsys):
    good = write(tmp_path / "good.npz", np.ones((5, 4)))
    np.savez(tmp_path / "other.npz", pool_3=np.ones((5, 4)))
    cases = {
        "features of 4 numbers": (UsageError, write(tmp_path / "wide.npz", np.ones((5, 7)))),
        "not an .npz with an array 'features'": (UsageError, tmp_path / "other.npz"),
        "are [5], not finite numbers": (UsageError, write(tmp_path / "flat.npz", np.ones(5))),
        "are [5, 4], not finite": (UsageError, write(tmp_path / "nan.npz", np.full((5, 4), np.nan))),
        "there is no file": (MissingError, tmp_path / "none.npz"),
    }
    for match, (kind, path) in cases.items():
        with pytest.raises(SystemExit) as ended:
            feature_distances.main([str(good), str(path)])
        said = capsys.readouterr().err
        assert ended.value.code == kind.exit_code and match in said and said.count("\n") == 1
