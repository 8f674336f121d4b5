"""The digits classifier in numpy: the file in the repository, its accuracy, and its layers against flax."""

from importlib import resources

import flax.linen as nn
import jax
import numpy as np
import pytest

from flowmaps import data
from flowmaps.metrics import features
from flowmaps.metrics.digest import sha256_of_arrays

FINGERPRINT = "5f5d5e74bcb132db0cb35d2965ef03da30b2329a219dd1692c900d0812b69cb8"


def test_the_weights_are_those_that_the_documented_numbers_used():
    assert sha256_of_arrays(features.load_weights()) == FINGERPRINT


def test_the_file_is_smaller_than_a_megabyte():
    assert len(resources.files("flowmaps.metrics").joinpath("digits_features.npz").read_bytes()) < 1_000_000


def test_the_classifier_saw_the_split_that_the_data_have_now():
    assert features.trained_on() == data.load("digits").fingerprint


def test_accuracy_on_held_out_digits():
    test = data.load("digits").test
    batch = test.batch(np.arange(len(test)))
    assert np.mean(features.logits(batch["x1"]).argmax(axis=1) == batch["label"]) >= 0.97


def test_blocks_do_not_change_features():
    images = np.random.default_rng(0).uniform(-1, 1, (features.BLOCK + 3, 8, 8, 1))
    whole = features.hidden(features.load_weights(), images)
    np.testing.assert_allclose(features.extract(images), whole, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2])
def test_convolution_is_that_of_flax(stride):
    rng = np.random.default_rng(0)
    x, kernel, bias = rng.normal(size=(2, 8, 8, 3)), rng.normal(size=(3, 3, 3, 5)), rng.normal(size=5)
    with jax.enable_x64(True):
        layer = nn.Conv(5, (3, 3), strides=stride, padding=1, param_dtype=np.float64)
        expected = layer.apply({"params": {"kernel": kernel, "bias": bias}}, x)
    computed = features.convolution({"c/kernel": kernel, "c/bias": bias}, "c", x, stride)
    np.testing.assert_allclose(computed, expected, rtol=1e-12, atol=1e-12)
