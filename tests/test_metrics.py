"""The metrics by name: what each file adds, what they refuse, and their values for real and exact samples."""

import numpy as np
import pytest

from flowmaps import data, metrics
from flowmaps.errors import UsageError
from flowmaps.metrics import _digits

ON_PLANES = ("kl_aligned", "kl_paper", "mmd", "modes", "sliced_w2", "w2")
ON_IMAGES = ("fd_classifier", "fid", "inception_manifold", "inception_score", "kid", "sfid")
ON_DIGITS = ("fd_digits", "kid_digits", "manifold", "nn_ratio")


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.fixture(scope="module")
def checker():
    return data.load("checker")


def test_metrics_are_those_that_the_files_list():
    assert metrics.names() == tuple(sorted((*ON_PLANES, *ON_DIGITS, *ON_IMAGES, "bound", "nll", "straightness")))


def test_values_have_one_name_each_over_all_metrics():
    values = [value for name in metrics.names() for value in metrics.load(name).values]
    assert len(values) == len(set(values))


def test_an_unknown_metric_names_the_nearest():
    with pytest.raises(UsageError, match="unknown metric 'fd_digit': did you mean 'fd_digits'"):
        metrics.load("fd_digit")


def test_a_metric_of_digits_refuses_a_plane(checker):
    with pytest.raises(UsageError, match="needs digits data, and these are plane data"):
        metrics.check("fd_digits", checker)


def test_a_divergence_refuses_a_plane_without_density(checker):
    nameless = checker._replace(log_density=None)
    with pytest.raises(UsageError, match=r"plane data with a density.*choose from mmd, modes, sliced_w2, w2$"):
        metrics.check("kl_paper", nameless)
    metrics.check("w2", nameless)


def test_a_count_of_modes_refuses_a_plane_without_them():
    with pytest.raises(UsageError, match="needs plane data with modes, and these are plane data without: choose from"):
        metrics.check("modes", data.load("moons"))


def test_too_few_samples_are_refused_with_their_number(checker):
    with pytest.raises(UsageError, match="at least 16 samples, got 3"):
        metrics.load("w2").compute(np.zeros((3, 2)), checker, None, 0)


@pytest.mark.parametrize("name", ON_DIGITS)
def test_one_bad_pixel_makes_every_value_nan(name, digits):
    samples = np.zeros((20, 8, 8, 1), np.float32)
    samples[7, 3, 3, 0] = np.inf
    values = metrics.load(name).compute(samples, digits, None, 0)
    assert set(values) == set(metrics.load(name).values)
    assert all(np.isnan(value) for value in values.values())


@pytest.mark.parametrize("name", ON_PLANES + ON_DIGITS)
def test_samples_beyond_the_protocol_change_nothing(name, checker, digits):
    dataset = checker if name in ON_PLANES else digits
    metric = metrics.load(name)
    samples = np.random.default_rng(0).uniform(-1, 1, (metric.num_samples + 10, *dataset.shape))
    longer, exact = (metric.compute(x, dataset, None, 0) for x in (samples, samples[: metric.num_samples]))
    assert longer == exact
    assert set(exact) == set(metric.values)


@pytest.mark.parametrize("name", [name for name in ON_PLANES if name != "modes"])
def test_floors_of_different_seeds_are_different_draws(name, checker):
    floors = [metrics.load(name).floor(checker, seed, 1000)[name] for seed in range(4)]
    assert len(np.unique(np.round(floors, 9))) == 4


@pytest.mark.parametrize("name, expected, within", [("kl_paper", 0.066, 0.003), ("kl_aligned", 0.003, 0.001)])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_divergence_floors_of_exact_samples(name, expected, within, seed, checker):
    assert abs(metrics.load(name).floor(checker, seed)[name] - expected) < within


def test_floor_of_the_plane_is_the_value_of_exact_samples(checker):
    metric = metrics.load("sliced_w2")
    exact = checker.train.batch(np.arange(500), 3)["x1"]
    assert metric.floor(checker, 3, 500) == metric.compute(exact, checker, None, 3)


def test_training_digits_are_perfect_and_memorised(digits):
    train = _digits.images(digits.train)
    value = {n: v for name in ON_DIGITS for n, v in metrics.load(name).compute(train, digits, None, 0).items()}
    assert value["fd_digits"] < 1e-9
    assert value["nn_ratio"] == 0
    assert value["precision"] == value["recall"] == value["coverage"] == 1
    assert value["kid_digits"] < 0  # the unbiased estimate takes copies for a closer match than chance allows


def test_held_out_digits_are_as_new_as_themselves(digits):
    metric = metrics.load("nn_ratio")
    assert metric.floor(digits, 0) == metric.compute(_digits.images(digits.test), digits, None, 0) == {"nn_ratio": 1}


def test_frechet_floor_lies_below_noisy_digits_and_a_gaussian_per_class(digits):
    """Real against real 0.7, a Gaussian per class 3.1 and noise of 0.2 0.8 in a trial with other features."""
    metric = metrics.load("fd_digits")
    floor = metric.floor(digits, 0)["fd_digits"]
    gaussian = metric.references["a Gaussian per class"](digits, 0)["fd_digits"]
    assert 0.4 < floor < 1.2
    assert 2.2 < gaussian < 4.5


def test_a_gaussian_per_class_has_the_moments_of_each_class(digits):
    batch = digits.train.batch(np.arange(1500))
    samples, labels = _digits.gaussian_per_class(digits, 1500, 0)
    np.testing.assert_array_equal(np.bincount(labels), np.bincount(batch["label"]))
    for label in range(10):
        real, drawn = (x[y == label].mean(axis=0) for x, y in ((batch["x1"], batch["label"]), (samples, labels)))
        assert np.abs(real - drawn).max() < 0.25  # cutting to [-1, 1] moves the mean of a dark pixel
    assert np.abs(samples).max() <= 1


def test_scaled_features_have_trace_100():
    rng = np.random.default_rng(0)
    x, real = rng.normal(size=(30, 5)), rng.normal(size=(40, 5)) * 7
    scaled, scaled_real = _digits.to_real_scale(x, real)
    assert np.isclose(np.trace(np.cov(scaled_real, rowvar=False)), 100)
    np.testing.assert_allclose(scaled / x, scaled_real[0, 0] / real[0, 0])
