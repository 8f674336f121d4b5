"""Sampling: what samples.npz holds, the rule of bytes, and pictures from one noise."""

import io

import jax
import numpy as np
import pytest
import small_runs
from PIL import Image

from flowmaps import evaluate, experiment, generate, plots, sample
from flowmaps.errors import MissingError, UsageError


def npz(directory):
    with np.load(directory / "samples.npz", allow_pickle=False) as file:
        return dict(file)


def drawn(config, workdir, steps):
    exp = experiment.build(config)
    _, averages = evaluate.latest(exp, workdir)
    return sample.draw(exp, sample.check(exp), averages[0.999], steps).x


def test_bytes_are_127_5_x_plus_128_cut_and_truncated():
    x = np.array([-2, -1, -0.999, -0.5, 0, 0.004, 1 - 1e-6, 1, 2, np.nan, np.inf], np.float32)
    np.testing.assert_array_equal(sample.to_uint8(x), [0, 0, 0, 64, 128, 128, 255, 255, 255, 0, 255])
    levels = np.arange(256, dtype=np.float32)
    np.testing.assert_array_equal(sample.to_uint8(levels / np.float32(127.5) - 1), levels)


def test_images_are_saved_as_bytes_with_their_labels(tmp_path):
    config = small_runs.digits()
    small_runs.save(config, tmp_path)
    directory = sample.run(config, tmp_path)
    saved = npz(directory)
    assert {name: (x.shape, x.dtype) for name, x in saved.items()} == {
        "arr_0": ((24, 8, 8, 1), np.uint8),
        "arr_1": ((24,), np.int64),
    }
    np.testing.assert_array_equal(saved["arr_0"], sample.to_uint8(drawn(config, tmp_path, 3)))
    np.testing.assert_array_equal(saved["arr_1"], np.arange(24) % 10)
    assert {path.name for path in directory.iterdir()} == {"grid.png", "samples.npz"}


def test_planes_are_saved_as_points(tmp_path):
    config = small_runs.plane()
    small_runs.save(config, tmp_path)
    directory = sample.run(config, tmp_path)
    (points,) = npz(directory).values()
    assert (points.shape, points.dtype) == ((24, 2), np.float32)
    np.testing.assert_array_equal(points, drawn(config, tmp_path, 3))
    assert {path.name for path in directory.iterdir()} == {"grid.png", "trajectories.png", "samples.npz"}


def test_all_rows_of_the_grid_come_from_one_noise():
    exp = experiment.build(small_runs.digits(sample__num_samples=3, sample__steps=(1, 2)))
    weights = small_runs.zeros(exp)
    made = {steps: sample.draw(exp, sample.check(exp), weights, steps) for steps in (1, 2)}
    grid = np.asarray(Image.open(io.BytesIO(sample.draw_images(exp, made)["grid.png"])))
    first, second, real = np.split(np.concatenate([grid, np.zeros_like(grid[:8])]), 3)
    np.testing.assert_array_equal(first[:, -304:], second[:, -304:])
    assert (first[:, -304:] != real[:, -304:]).any()


def test_real_images_have_the_labels_of_the_samples():
    exp = experiment.build(small_runs.digits())
    labels = np.arange(13) % 10
    images = sample.real_like(exp, labels, 13)
    train = exp.dataset.train.batch(np.arange(len(exp.dataset.train)))
    where = [np.flatnonzero((train["x1"] == image).all(axis=(1, 2, 3)))[0] for image in images]
    np.testing.assert_array_equal(train["label"][where], labels)
    assert len(set(where)) == 13


def test_sampling_again_gives_the_same_files(tmp_path):
    config = small_runs.plane()
    small_runs.save(config, tmp_path)
    first, second = (
        {path.name: path.read_bytes() for path in sample.run(config, tmp_path).iterdir()} for _ in range(2)
    )
    assert first == second


def test_wrong_values_are_named_before_anything_is_sampled(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "samples", lambda *_, **__: pytest.fail("sampled"))
    with pytest.raises(UsageError, match="unknown sampler 'gama'"):
        sample.run(small_runs.plane(sample__sampler="gama"), tmp_path)
    with pytest.raises(UsageError, match=r"sample\.num_samples=0"):
        sample.run(small_runs.plane(sample__num_samples=0), tmp_path)
    with pytest.raises(MissingError, match=r"no checkpoint in .*--mode=train"):
        sample.run(small_runs.plane(), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_last_step_of_a_trajectory_is_the_sample(monkeypatch):
    exp = experiment.build(small_runs.plane(sample__num_samples=8))
    seen = {}
    monkeypatch.setattr(plots, "trajectories", lambda paths: seen.update(paths) or b"")
    params = jax.jit(lambda: experiment.init(exp).params["student"])()
    made = {steps: sample.draw(exp, sample.check(exp), params, steps) for steps in (1, 3)}
    sample.draw_plane(exp, params, made)
    for steps, samples in made.items():
        np.testing.assert_allclose(seen[steps][-1], samples.x, rtol=1e-5, atol=1e-6)
