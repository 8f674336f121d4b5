"""The Frechet distance of a classifier's features: the network, a run that is measured by it, and what is refused."""

from importlib import resources

import jax
import numpy as np
import pytest
import small_runs

from configs import base
from flowmaps import data, evaluate, experiment, stats
from flowmaps.errors import MissingError, UsageError
from flowmaps.metrics import classifier, features
from flowmaps.metrics.digest import sha256_of_arrays
from flowmaps.metrics.frechet import frechet
from scripts import train_classifier

DIGITS = str(resources.files("flowmaps.metrics").joinpath("digits_features.npz"))
"""A classifier of images of 8 x 8."""


def numpy_features(x):
    """Of images 0 to 255 by the digits' classifier."""
    return features.extract(np.asarray(x, np.float64) / 127.5 - 1)


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8)


@pytest.fixture
def config(tmp_path, pixels):
    """A run on small grey images that are measured by the digits' classifier."""
    np.savez(tmp_path / "images.npz", train_x=pixels, train_y=np.arange(40) % 2, test_x=255 - pixels)
    made = base.images("flow_matching", "arrays")
    made.network = base.part(base.networks, "mlp", width=8, depth=1)
    made.data.path = str(tmp_path / "images.npz")
    made.train.update(steps=10, batch_size=8)
    made.mesh.data = 1
    made.eval.update(metrics=("fd_classifier",), classifier=DIGITS, num_samples=32, batch_size=32, steps=(1,))
    made.eval.statistics = str(tmp_path / "statistics")
    return made


def test_the_network_is_the_one_in_numpy(pixels):
    variables = classifier.variables(classifier.read(DIGITS))
    found = jax.jit(classifier.apply)(variables, pixels[..., None])
    np.testing.assert_allclose(found.pool, numpy_features(pixels[..., None]), rtol=1e-4, atol=1e-4)
    logits = features.logits(pixels[..., None] / 127.5 - 1)
    np.testing.assert_allclose(found.logits, logits, rtol=1e-4, atol=1e-3)
    assert found.spatial.shape == (40, 0)


def test_a_run_is_measured_by_it(tmp_path, config, pixels):
    """The floor is that of the held-out images, the name has the number, and the row says by which file."""
    small_runs.save(config, tmp_path / "run")
    (row,) = evaluate.run(config, tmp_path / "run")
    assert row["metric"] == "fd_classifier_32" and row["value"] > row["floor"] > 0
    digest = sha256_of_arrays(classifier.read(DIGITS))[:8]
    assert "40 training images" in row["against"] and "classifier, none, x / 127.5 - 1, uint8 12" in row["against"]
    assert row["against"].endswith(f"weights {digest}")
    held_out = np.random.default_rng(0).permutation(40)[:32]
    real, test = (numpy_features(x[..., None]) for x in (pixels, (255 - pixels)[held_out]))
    np.testing.assert_allclose(row["floor"], frechet(test, real), rtol=1e-3)


def refused(config, error, message):
    with pytest.raises(error, match=message):
        evaluate.check(experiment.build(config, training=False))


def test_without_its_file_or_with_another_nothing_is_sampled(tmp_path, config, pixels):
    config.eval.classifier = None
    refused(config, MissingError, "no file is named: train one with `python -m scripts.train_classifier --data=")
    config.eval.classifier = "/none.npz"
    refused(config, MissingError, r"there is no file /none\.npz: train one")
    config.eval.classifier = config.data.path
    refused(config, UsageError, r"images\.npz is no classifier of this kind, 'conv1/bias' is in one of them alone")
    config.eval.update(classifier=DIGITS, metrics=("fd_classifier", "fid"))
    refused(config, UsageError, "look at images through classifier and inception: measure with the metrics of one")
    config.eval.metrics = ("fd_classifier",)
    config.data.pad = 2
    refused(config, UsageError, r"of other images than 12x12x1, hidden/kernel is \(1024, 64\) and not \(2304, 64\)")


def test_its_statistics_are_its_own(config):
    """A file of another network's is refused."""
    config.eval.reference = stats.run(config)["statistics"]
    evaluate.check(experiment.build(config, training=False))
    with np.load(config.eval.reference) as arrays:
        np.savez(config.eval.reference, **{**arrays, "feature": "inception-2015-12-05"})
    refused(config, UsageError, "feature='inception-2015-12-05', and here it is 'classifier'")


def test_the_script_trains_one_of_labelled_images(tmp_path, capsys):
    """Black and white are told apart in a few steps; what has no labels is refused."""
    y = np.arange(128) % 2
    x = np.broadcast_to((255 * y)[:, None, None, None], (128, 4, 4, 3)).astype(np.uint8)
    np.savez(tmp_path / "images.npz", train_x=x, train_y=y, test_x=x, test_y=y)
    images = f"arrays(path='{tmp_path / 'images.npz'}')"
    train_classifier.main([f"--data={images}", f"--output={tmp_path / 'made.npz'}", "--steps=5"])
    made = classifier.read(tmp_path / "made.npz")
    classifier.check_images(made, (4, 4, 3), "made.npz")
    assert made["logits/kernel"].shape == (64, 2)
    said = capsys.readouterr().out
    assert said == f"{tmp_path / 'made.npz'}: accuracy 1.0000, {sha256_of_arrays(made)}\n"
    logits = jax.jit(classifier.apply)(classifier.variables(made), x).logits
    np.testing.assert_array_equal(np.argmax(logits, axis=1), y)
    with np.load(tmp_path / "made.npz") as file:
        assert str(file["data"]) == data.load("arrays", path=str(tmp_path / "images.npz")).fingerprint
    with pytest.raises(SystemExit):
        train_classifier.main(["--data=checker", f"--output={tmp_path / 'none.npz'}"])
    assert "a classifier learns from images with labels" in capsys.readouterr().err
