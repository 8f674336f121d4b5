"""The planes against their laws, the digits against scikit-learn, and draws that depend on their row alone."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.stats

from flowmaps import data
from flowmaps.data import _random
from flowmaps.errors import UsageError

PLANES = ("checker", "moons", "rings", "spirals", "swiss_roll")
POINTS = 200_000


def draw(name, count=POINTS, **options):
    return data.load(name, **options).train.batch(np.arange(count))["x1"].astype(np.float64)


def test_names_and_options():
    assert data.names() == (
        "arrays", "checker", "digits", "folder", "latents", "moons", "rings", "spirals", "swiss_roll", "tfds"
    )  # fmt: skip
    assert data.options("rings") == {"modes": 8, "radius": 0.8, "std": 0.04}
    with pytest.raises(UsageError, match=r"unknown data set 'cheker': did you mean 'checker'\?"):
        data.load("cheker")
    with pytest.raises(UsageError, match=r"unknown option of data 'rings' 'mode': did you mean 'modes'\?"):
        data.load("rings", mode=3)


def test_needs_neither_jax_nor_the_heavy_packages_before_they_are_used():
    code = (
        "import sys, flowmaps.data; print([m for m in ('tensorflow_datasets', 'sklearn', 'grain') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"


def test_random_words_are_splitmix64():
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    np.testing.assert_array_equal(_random.bits(np.array([1234567], np.uint64), 4), [expected])


def test_random_numbers_have_their_moments():
    key = _random.keys(0, np.arange(POINTS))
    u, z = _random.uniforms(key, 2), _random.gaussian(_random.uniforms(key, 2))
    np.testing.assert_allclose(u.mean(0), 0.5, atol=4 * np.sqrt(1 / 12 / POINTS))
    np.testing.assert_allclose(z.mean(0), 0, atol=4 / np.sqrt(POINTS))
    np.testing.assert_allclose(np.cov(z.T), np.eye(2), atol=4 * np.sqrt(2 / POINTS))
    np.testing.assert_allclose((z**4).mean(0), 3, atol=4 * np.sqrt(96 / POINTS))
    np.testing.assert_allclose(_random.coins(key).mean(), 0.5, atol=2 / np.sqrt(POINTS))


def test_keys_tell_seeds_fields_and_rows_apart():
    rows = np.arange(1000)
    variants = [_random.keys(s, f, rows) for s in (-1, 0, 1) for f in (0, 1)]
    assert len(np.unique(np.concatenate(variants))) == 6000
    np.testing.assert_array_equal(_random.keys(3, np.full(1000, 5), rows), _random.keys(3, 5, rows))


@pytest.mark.parametrize("name", PLANES)
def test_a_plane_is_a_function_of_seed_and_index(name):
    dataset = data.load(name)
    assert (dataset.shape, dataset.num_classes, dataset.kind) == ((2,), 0, "plane")
    assert len(dataset.train) == len(dataset.test) == data.ENDLESS
    whole = dataset.train.batch(np.arange(1000), seed=3)
    assert (whole["x1"].dtype, whole["label"].dtype) == (np.float32, np.int32)
    some = np.array([999, 0, 0, 512])
    np.testing.assert_array_equal(dataset.train.batch(some, seed=3)["x1"], whole["x1"][some])
    for other in (dataset.train.batch(np.arange(1000), seed=4), dataset.test.batch(np.arange(1000), seed=3)):
        assert not (other["x1"] == whole["x1"]).all(axis=1).any()


def test_checker_is_uniform_on_the_squares_of_the_paper():
    x = draw("checker")
    column, row = np.floor(2 * (x + 1)).astype(int).T
    counts = np.zeros((4, 4))
    np.add.at(counts, (column, row), 1)
    occupied = np.add.outer(np.arange(4), np.arange(4)) % 2 == 0
    assert occupied[0, 0] and (counts[~occupied] == 0).all()
    expected = POINTS / 8
    assert ((counts[occupied] - expected) ** 2 / expected).sum() < 24.3  # chi-squared, 7 degrees, p = 0.001
    within = 2 * (x + 1) - np.floor(2 * (x + 1))
    np.testing.assert_allclose(within.mean(0), 0.5, atol=4 * np.sqrt(1 / 12 / POINTS))
    np.testing.assert_allclose(np.cov(within.T), np.eye(2) / 12, atol=1e-3)
    np.testing.assert_allclose(x.var(0), 1 / 3, rtol=0.01)


def test_checker_density():
    log_density = data.load("checker").log_density
    centres = (np.arange(-32, 96) + 0.5) / 32 - 1  # of bins over [-2, 2] that fit the squares
    grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    assert np.exp(log_density(grid)).sum() / 32**2 == 1
    points = np.array([[-1, -1], [-0.75, -0.75], [-0.5, -0.75], [0.99, 0.99], [1, 0.99], [0.25, -0.75]])
    np.testing.assert_array_equal(np.exp(log_density(points)).round(12), [0.5, 0.5, 0, 0.5, 0, 0.5])
    assert np.isfinite(log_density(draw("checker"))).all()


def test_rings_density_integrates_to_one_and_is_that_of_the_draws():
    dataset = data.load("rings", modes=5, radius=0.7, std=0.1)
    centres = np.linspace(-2, 2, 401)
    grid = np.stack(np.meshgrid(centres, centres), axis=-1).reshape(-1, 2)
    density = np.exp(dataset.log_density(grid)) * 0.01**2
    np.testing.assert_allclose(density.sum(), 1, atol=1e-10)
    x = dataset.train.batch(np.arange(POINTS))["x1"]
    entropy = -(density * dataset.log_density(grid)).sum()
    np.testing.assert_allclose(-dataset.log_density(x).mean(), entropy, atol=4 / np.sqrt(POINTS))
    second = (density[:, None, None] * grid[:, :, None] * grid[:, None, :]).sum(0)
    np.testing.assert_allclose(x.T @ x / POINTS, second, atol=4 / np.sqrt(POINTS))


@pytest.mark.parametrize("name", ["rings", "checker"])
def test_modes_are_equally_likely(name):
    count, mode = data.load(name).modes
    counts = np.bincount(mode(draw(name)) + 1, minlength=9)
    assert count == 8 and counts[0] < POINTS / 1000
    assert ((counts[1:] - POINTS / 8) ** 2 / (POINTS / 8)).sum() < 24.3


def test_a_mode_of_the_rings_reaches_four_deviations_from_its_centre():
    modes = data.load("rings", modes=4, radius=1.0, std=0.1).modes
    points = np.array([[1, 0], [0, 1.399], [-0.7, -0.2], [0, -1.401], [0, 0], [0.3, -1.3]])
    np.testing.assert_array_equal(modes.of(points), [0, 1, 2, -1, -1, -1])


def test_the_modes_of_the_board_are_its_occupied_squares():
    mode = data.load("checker").modes.of
    centres = np.stack(np.meshgrid(*[(np.arange(4) + 0.5) / 2 - 1] * 2, indexing="ij"), axis=-1).reshape(-1, 2)
    np.testing.assert_array_equal(mode(centres), [0, -1, 1, -1, -1, 2, -1, 3, 4, -1, 5, -1, -1, 6, -1, 7])
    np.testing.assert_array_equal(mode(np.array([[-1.01, -0.9], [1.0, 0.9]])), [-1, -1])


def test_moons_without_noise_are_two_half_circles():
    x = draw("moons", noise=0.0) / 0.65 + (0.5, 0.25)
    upper = np.abs(np.hypot(*x.T) - 1) < 1e-6
    lower = x - (1, 0.5)
    np.testing.assert_allclose(np.hypot(*lower[~upper].T), 1, atol=1e-6)
    assert (x[upper, 1] > -1e-6).all() and (lower[~upper, 1] < 1e-6).all()
    np.testing.assert_allclose(upper.mean(), 0.5, atol=2 / np.sqrt(POINTS))


def test_swiss_roll_without_noise_is_an_arc_of_archimedes_spiral():
    x = draw("swiss_roll", start=0.75, turns=1.5, radius=0.9, noise=0.0)
    turn = np.hypot(*x.T) / 0.9 * 2.25
    assert 0.75 - 1e-6 < turn.min() < 0.751 and 2.249 < turn.max() < 2.25 + 1e-6
    angle = 2 * np.pi * turn[:, None]
    np.testing.assert_allclose(x, 0.4 * turn[:, None] * np.concatenate([np.cos(angle), np.sin(angle)], 1), atol=1e-5)
    np.testing.assert_allclose(turn.mean(), 1.5, atol=4 * 1.5 / np.sqrt(12 * POINTS))


def test_spirals_without_noise_are_equal_arms():
    x = draw("spirals", arms=3, turns=1.25, radius=1.0, noise=0.0)
    along = np.hypot(*x.T)
    arm = 3 * (np.arctan2(x[:, 1], x[:, 0]) / (2 * np.pi) - 1.25 * along)
    far = along > 0.05  # near the centre the angle is lost in rounding
    np.testing.assert_allclose(arm[far], arm[far].round(), atol=1e-4)
    np.testing.assert_allclose(np.bincount(arm[far].round().astype(int) % 3) / far.sum(), 1 / 3, atol=0.005)
    np.testing.assert_allclose((along**2).mean(), 0.5, atol=4 / np.sqrt(12 * POINTS))


def test_noise_is_added_to_the_same_points():
    clean, noisy = draw("moons", noise=0.0), draw("moons", noise=0.1)
    np.testing.assert_allclose(np.cov((noisy - clean).T), 0.01 * np.eye(2), atol=4 * 0.01 * np.sqrt(2 / POINTS))


def test_digits_are_those_of_scikit_learn_split_once():
    from sklearn.datasets import load_digits

    digits = data.load("digits")
    assert (len(digits.train), len(digits.test)) == (1500, 297)
    assert (digits.shape, digits.num_classes, digits.kind) == ((8, 8, 1), 10, "digits")
    batches = digits.train.batch(np.arange(1500)), digits.test.batch(np.arange(297))
    x = np.concatenate([b["x1"] for b in batches])
    labels = np.concatenate([b["label"] for b in batches])
    assert (x.dtype, x.min(), x.max(), labels.dtype) == (np.float32, -1, 1, np.int32)
    pixels, classes = load_digits(return_X_y=True)
    ours = np.concatenate([(x.reshape(-1, 64) + 1) * 8, labels[:, None]], axis=1)
    theirs = np.concatenate([pixels, classes[:, None]], axis=1)
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_fingerprints_tell_laws_and_parameters_apart_and_stay():
    assert data.load("checker").fingerprint == "34d373176d320309"
    assert data.load("digits").fingerprint == "b303387274dd08a7"
    prints = [data.load(name).fingerprint for name in (*PLANES, "digits")]
    prints.append(data.load("rings", modes=7).fingerprint)
    assert len(set(prints)) == 7


@pytest.mark.parametrize("count", [1, 7, 64])
def test_normals_have_their_law(count):
    """Kolmogorov's test does not tell them from normals at a level of 0.001, and numbers of a row and of two rows are
    uncorrelated."""
    x = _random.normals(_random.keys(0, np.arange(40_000), 5), count).astype(np.float64)
    assert x.shape == (40_000, count)
    assert scipy.stats.kstest(x.reshape(-1), "norm").pvalue > 0.001
    np.testing.assert_allclose(np.corrcoef(x.T).reshape(count, count), np.eye(count), atol=5 / np.sqrt(len(x)))
    np.testing.assert_allclose((x[1:] * x[:-1]).mean(), 0, atol=5 / np.sqrt(x.size))
