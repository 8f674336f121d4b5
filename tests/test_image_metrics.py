"""Metrics of images: closed forms through the path that features take, and what they do not depend on."""

import itertools
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import small_features

from flowmaps import data, judges, metrics, observer, sharding
from flowmaps.data._images import Images
from flowmaps.errors import UsageError
from flowmaps.metrics import statistics, summary
from flowmaps.metrics._inception import Features
from flowmaps.metrics.kernel import kernel_distance
from flowmaps.metrics.manifold import manifold


def look(devices=8):
    return observer.make(small_features.network, {}, sharding.make_mesh(devices))


def seen(pixels, devices=8):
    """The summary of images [n, 1, 1, 3] that are a source's."""
    return observer.of_source(look(devices), source(pixels), len(pixels))


def source(pixels, **options):
    return Images(pixels, np.zeros(len(pixels), np.int32), **options)


def cube(centre, radii, times=4):
    """All corners centre +- radii, each so many times: [8 times, 1, 1, 3], with the covariance n / (n - 1) radii^2."""
    corners = np.array(list(itertools.product((-1, 1), repeat=3)))
    return np.tile(centre + radii * corners, (times, 1)).astype(np.uint8).reshape(-1, 1, 1, 3)


def noise(count, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 1, 3), np.uint8)


def reference(pixels):
    return statistics.of_summary(seen(pixels), "")


def value(name, samples, against):
    return metrics.load(name).compute(samples, against)


def test_fid_and_sfid_of_boxes_are_those_of_their_gaussians():
    """|m - m'|^2 + sum (s - s')^2 of the mean m and the standard deviations s; sFID's features are twice as large."""
    centres, radii = ((100, 120, 90), (130, 80, 100)), np.array([(3, 20, 7), (11, 2, 30)])
    samples, real = (cube(np.array(c), r, times) for c, r, times in zip(centres, radii, (4, 9), strict=True))
    stds = [r * np.sqrt(n / (n - 1)) for r, n in zip(radii, (32, 72), strict=True)]
    expected = np.sum(np.subtract(*centres) ** 2) + np.sum((stds[0] - stds[1]) ** 2)
    assert value("fid", seen(samples), reference(real))["fid"] == pytest.approx(expected, rel=1e-10)
    assert value("sfid", seen(samples), reference(real))["sfid"] == pytest.approx(4 * expected, rel=1e-10)


def test_a_set_is_at_no_distance_from_itself():
    pixels = noise(700)
    assert value("fid", seen(pixels), reference(pixels))["fid"] < 1e-7
    assert value("fid", seen(pixels), reference(255 - pixels))["fid"] > 1


def test_moments_are_those_of_all_features_at_once():
    features = np.random.default_rng(0).normal(3, 2, (100, 5))
    sums = summary.joined(summary.moments(features[:37]), summary.moments(features[37:]))
    mean, covariance = summary.gaussian(sums)
    np.testing.assert_allclose(mean, features.mean(axis=0), rtol=1e-13)
    np.testing.assert_allclose(covariance, np.cov(features, rowvar=False), rtol=1e-11)


def assert_same(one, other):
    assert one.pool.count == other.pool.count and one.scores.count.tolist() == other.scores.count.tolist()
    np.testing.assert_array_equal(one.kept, other.kept)
    for a, b in zip((*one.pool, *one.spatial, *one.scores), (*other.pool, *other.spatial, *other.scores), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-12)


@pytest.mark.parametrize("devices, block", [(1, 64), (4, 64), (8, 3), (1, 1000)])
def test_devices_and_blocks_change_nothing(monkeypatch, devices, block):
    pixels = noise(333)
    whole = seen(pixels)
    monkeypatch.setattr(observer, "BLOCK", block)
    assert_same(seen(pixels, devices), whole)


@pytest.mark.parametrize("size", [1, 50, 333, 128])
def test_batches_of_samples_change_nothing(monkeypatch, size):
    monkeypatch.setattr(observer, "BLOCK", 5)
    monkeypatch.setattr(summary, "KEPT", 70)
    x = np.random.default_rng(0).uniform(-1.1, 1.1, (333, 1, 1, 3)).astype(np.float32)
    batches = (x[first : first + size] for first in range(0, len(x), size))
    found = observer.of_samples(look(), len(x), batches)
    expected = data.to_uint8(x).reshape(333, 3).astype(np.float64)
    np.testing.assert_array_equal(found.kept, expected[:70])
    np.testing.assert_allclose(summary.gaussian(found.pool).covariance, np.cov(expected, rowvar=False), rtol=1e-11)
    np.testing.assert_array_equal(np.bincount(np.arange(333) * 10 // 333), found.scores.count)


PROCESS = """
import sys
import jax, numpy as np
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
index, port, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
jax.distributed.initialize(f"localhost:{port}", 2, index)
import small_features, test_image_metrics as tests
from flowmaps import observer, sharding
read = []
class Source(tests.Images):
    def batch(self, indices, *rest):
        read.extend(indices.tolist())
        return super().batch(indices, *rest)
pixels = tests.noise(333)
look = observer.make(small_features.network, {}, sharding.make_mesh())
found = observer.of_source(look, Source(pixels, np.zeros(333, np.int32)), 333)
agreed = [sharding.everywhere(sharding.make_mesh(), here) for here in (True, index == 0)]
total, products = found.pool[1:]
np.savez(out, total=total, products=products, kept=found.kept, read=np.unique(read), agreed=agreed)
"""


@pytest.mark.long
def test_two_processes_share_the_images_and_have_the_sums_of_one(tmp_path):
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    folder = Path(__file__).parent
    environment = {"PYTHONPATH": f"{folder}:{folder.parent}", "PATH": ""}
    runs = [
        subprocess.Popen([sys.executable, "-c", PROCESS, str(p), port, str(tmp_path / f"{p}.npz")], env=environment)
        for p in range(2)
    ]
    assert [run.wait(120) for run in runs] == [0, 0]
    one, both = seen(noise(333)), [np.load(tmp_path / f"{p}.npz") for p in range(2)]
    for found in both:
        np.testing.assert_allclose(found["products"], one.pool.products, rtol=1e-12)
        np.testing.assert_allclose(found["total"], one.pool.total, rtol=1e-12)
        np.testing.assert_array_equal(found["kept"], one.kept)
        assert found["agreed"].tolist() == [True, False]
    assert sorted({*both[0]["read"], *both[1]["read"]}) == list(range(333))
    assert len(both[0]["read"]) < 333 > len(both[1]["read"])


def test_images_are_those_that_are_stored_without_flips():
    pixels = np.random.default_rng(0).integers(0, 256, (40, 2, 3, 3), np.uint8)
    flipped = observer.of_source(look(), source(pixels, flip=True), 40)
    np.testing.assert_array_equal(np.sort(flipped.kept, axis=0), np.sort(pixels[:, 0, 0], axis=0))


def of_logits(logits):
    zeros = np.zeros((len(logits), 2))
    return summary.summarise([Features(zeros, zeros, logits)], len(logits))


def test_inception_score_by_hand():
    """Certain and balanced over c classes: c. Certain of one class, or of none: 1."""
    certain = 1e3 * np.eye(4)[np.arange(80) % 4]
    assert summary.inception_score(of_logits(certain).scores) == pytest.approx(4)
    assert summary.inception_score(of_logits(np.repeat(certain[:1], 80, axis=0)).scores) == pytest.approx(1)
    assert summary.inception_score(of_logits(np.zeros((80, 4))).scores) == pytest.approx(1)


def test_inception_score_is_the_mean_over_ten_parts():
    """exp of KL(p || mean p) within each part, as a loop computes it, and not exp of the mean or of the whole."""
    logits = np.random.default_rng(0).normal(0, 3, (57, 4))
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    part = np.arange(57) * 10 // 57
    expected = []
    for number in range(10):
        own = p[part == number]
        expected.append(np.exp(np.mean([np.sum(row * np.log(row / own.mean(axis=0))) for row in own])))
    assert summary.inception_score(of_logits(logits).scores) == pytest.approx(np.mean(expected), rel=1e-12)


def test_kid_and_manifold_are_those_of_what_is_kept(monkeypatch):
    monkeypatch.setattr(summary, "KEPT", 60)
    samples, real = seen(noise(90, seed=1)), reference(noise(80))
    assert samples.kept.shape == real.kept.shape == (60, 3)
    x, y = (np.asarray(kept, np.float64) for kept in (samples.kept, real.kept))
    assert value("kid", samples, real) == {"kid": kernel_distance(x, y)}
    few = samples._replace(kept=samples.kept[:40])
    expected = {f"inception_{name}": v for name, v in manifold(x[:40], y[:40]).items()}
    assert value("inception_manifold", few, real) == expected
    assert set(expected) == set(metrics.load("inception_manifold").values)


def test_a_sample_that_is_not_finite_makes_every_value_nan():
    x = np.zeros((20, 1, 1, 3), np.float32)
    x[7, 0, 0, 1] = np.nan
    broken, real = observer.of_samples(look(), 20, [x]), reference(noise(20))
    for name in metrics.of_features(metrics.names()):
        values = value(name, broken, real)
        assert set(values) == set(metrics.load(name).values) and np.isnan(list(values.values())).all()


def test_the_floor_is_that_of_as_many_held_out_images():
    train, test = noise(100), noise(30, seed=3)
    zeros = np.zeros(100, np.int32)
    dataset = data.Dataset(Images(train, zeros), Images(test, zeros[:30]), (1, 1, 3), 0, "image", "")
    judge = judges.of_images(dataset, look(), reference(train), 64)
    assert judge.floor("fid", 0, 30) == value("fid", seen(test), reference(train))
    assert np.isnan(judge.floor("fid", 0, 31)["fid"])
    untested = judges.of_images(dataset._replace(test=None), look(), reference(train), 64)
    assert np.isnan(untested.floor("kid", 0, 20)["kid"])


@pytest.mark.parametrize("count, name", [(50_000, "fid_50k"), (10_000, "fid_10k"), (1_500, "fid_1500")])
def test_names_end_in_the_number_of_samples(count, name):
    assert metrics.shown(metrics.load("fid"), "fid", count) == name
    assert metrics.shown(metrics.load("fd_digits"), "fd_digits", count) == "fd_digits"


def test_a_metric_of_images_refuses_a_plane():
    with pytest.raises(UsageError, match="metric 'fid' needs image data, and these are plane data"):
        metrics.check("fid", data.load("checker"))
