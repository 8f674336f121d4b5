"""Statistics of data sets: their file, what is refused, and a run on images measured from end to end."""

import json
import re

import inception_files
import launcher
import numpy as np
import pytest
import sd_autoencoder
import small_features
import small_runs
from PIL import Image

from configs import base
from flowmaps import evaluate, experiment, generate, measurements, metrics, sample, stats, train
from flowmaps.errors import MissingError, UsageError
from flowmaps.metrics import inception
from flowmaps.metrics.frechet import frechet

COUNT = 48


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (COUNT, 4, 4, 3), np.uint8)


@pytest.fixture
def config(tmp_path, pixels):
    """A run on a few small images, that measures them with a network of three features."""
    np.savez(tmp_path / "images.npz", images=pixels, test_images=255 - pixels[:32])
    made = base.images("flow_matching", "arrays")
    made.network = base.part(base.networks, "mlp", width=8, depth=1)
    made.data.update(path=str(tmp_path / "images.npz"), flip=True)
    made.optimizer.warmup_steps = 0
    made.train.update(steps=10, batch_size=8)
    made.eval.update(metrics=("fid",), num_samples=32, batch_size=16, steps=(1, 2))
    made.eval.statistics = str(tmp_path / "statistics")
    return made


@pytest.fixture
def small(monkeypatch):
    small_features.use(monkeypatch)


def own_file(config):
    return stats.run(config)["statistics"]


def rewrite(path, **changed):
    with np.load(path) as arrays:
        kept = {**arrays, **changed}
    np.savez(path, **{name: array for name, array in kept.items() if array is not None})


def refused(config, *parts, error=UsageError):
    """What an evaluation says before anything is sampled."""
    with pytest.raises(error) as raised:
        evaluate.check(experiment.build(config, training=False))
    said = str(raised.value)
    assert "\n" not in said
    for part in parts:
        assert part in said


def test_the_file_says_how_and_of_what_it_was_made(config, pixels, small):
    path = own_file(config)
    fingerprint = experiment.load_data(config.data).fingerprint
    with np.load(path, allow_pickle=False) as found:
        names = (*inception.PROTOCOL, "weights_sha256", "data", "shape", "num_images")
        facts = {name: str(found[name]) for name in names}
        first = pixels[:, 0, 0].astype(np.float64)
        np.testing.assert_allclose(found["mu"], first.mean(axis=0), rtol=1e-13)
        np.testing.assert_allclose(found["sigma"], np.cov(first, rowvar=False), rtol=1e-11)
        np.testing.assert_allclose(found["sigma_s"], 4 * np.cov(first, rowvar=False), rtol=1e-11)
        assert {"jax", "numpy", "flowmaps"} <= json.loads(str(found["versions"])).keys()
    own = {"weights_sha256": small_features.sha256(), "data": fingerprint, "shape": "4x4x3", "num_images": str(COUNT)}
    assert facts == {**inception.PROTOCOL, **own}


def test_statistics_are_made_once(config, small, monkeypatch):
    path = own_file(config)
    monkeypatch.setattr(stats.observer, "of_source", lambda *_: pytest.fail("looked again"))
    assert own_file(config) == path


def test_a_run_on_images_is_measured(tmp_path, config, small):
    """Its samples are uint8 before they have features, its names have their number, its rows say against what."""
    config.eval.metrics = ("fid", "sfid", "inception_score")
    small_runs.save(config, tmp_path / "run")
    rows = evaluate.run(config, tmp_path / "run")
    names = [f"{value}_32" for name in config.eval.metrics for value in metrics.load(name).values]
    assert [row["metric"] for row in rows] == names * 2
    assert {row["num_samples"] for row in rows} == {32}
    fingerprint = experiment.load_data(config.data).fingerprint
    for part in (f"48 training images {fingerprint}", *inception.PROTOCOL.values(), small_features.sha256()[:8]):
        assert part in rows[0]["against"]
    (table,) = measurements.tables(rows)
    assert rows[0]["against"] in table.note

    exp = experiment.build(config, training=False)
    _, averages = evaluate.latest(exp, tmp_path / "run")
    params, program = next(iter(averages.values())), evaluate.program(exp)
    made = generate.samples(exp, program, params, steps=2, seed=0, num_samples=32)
    real, test = (source.pixels[:, 0, 0].astype(np.float64) for source in (exp.dataset.train, exp.dataset.test))
    drawn = np.clip(127.5 * made.x[:, 0, 0].astype(np.float64) + 128, 0, 255).astype(np.uint8).astype(np.float64)
    row = next(row for row in rows if row["metric"] == "fid_32" and row["steps"] == 2)
    assert row["value"] == pytest.approx(frechet(drawn, real), rel=1e-6)
    assert row["floor"] == pytest.approx(frechet(test, real), rel=1e-9)


def test_the_best_checkpoint_is_picked_by_the_name_with_its_number(config, small):
    config.train.eval_every = 5
    for name, mistake in (("fid_32/2", None), ("fid/2", "mean 'fid_32/2'")):
        config.eval.best_metric = name
        exp = experiment.build(config)
        if mistake is None:
            train.check_best_metric(exp)
        else:
            with pytest.raises(UsageError, match=mistake):
                train.check_best_metric(exp)


@pytest.mark.parametrize("keys", [("mu", "sigma"), ("ref_mu", "ref_sigma")])
def test_foreign_statistics_are_taken_with_a_warning(tmp_path, config, small, caplog, keys):
    mean, covariance = np.array([1.0, 2, 3]), np.diag([4.0, 5, 6])
    np.savez(tmp_path / "foreign.npz", **dict(zip(keys, (mean, covariance), strict=True)))
    config.eval.reference = str(tmp_path / "foreign.npz")
    exp = experiment.build(config, training=False)
    with caplog.at_level("WARNING", logger="absl"):
        evaluate.check(exp)
        judge = evaluate.make_judge(exp)
    assert "says nothing of its images, their resize and scaling" in caplog.text
    assert re.fullmatch(r"foreign\.npz \([0-9a-f]{8}\), preprocessing unknown", judge.against)
    for name in ("sfid", "kid"):
        config.eval.metrics = (name,)
        refused(config, f"metric '{name}' reads more than mu and sigma", "foreign.npz")


def test_adms_statistics_serve_sfid(tmp_path, config, small):
    moments = {"mu": np.zeros(3), "sigma": np.eye(3), "mu_s": np.ones(3), "sigma_s": 2 * np.eye(3)}
    np.savez(tmp_path / "adm.npz", **moments)
    config.eval.update(reference=str(tmp_path / "adm.npz"), metrics=("fid", "sfid"))
    exp = experiment.build(config, training=False)
    evaluate.check(exp)
    reference = stats.reference(config, exp.dataset, stats.open_eyes(config, exp.mesh))
    np.testing.assert_array_equal(reference.spatial.covariance, 2 * np.eye(3))


MISTAKES = {
    "another network": ({"mu": np.zeros(5)}, ["mu [5] and sigma [3, 3]", "have 3 numbers", "another network"]),
    "not finite": ({"sigma": np.full((3, 3), np.nan)}, ["not finite"]),
    "another resize": ({"resize": "bicubic"}, ["resize='bicubic'", "TensorFlow 1", "leave eval.reference out"]),
    "other weights": ({"weights_sha256": "f00d"}, ["weights_sha256='f00d'"]),
    "other data": ({"data": "beef"}, ["data='beef'"]),
    "another size": ({"shape": "8x8x3"}, ["shape='8x8x3'", "'4x4x3'"]),
    "no rule for bytes": ({"uint8": None}, ["uint8='absent'"]),
    "no moments": ({"mu": None}, ["statistics are mu and sigma, or ref_mu and ref_sigma"]),
}


@pytest.mark.parametrize("changed, parts", MISTAKES.values(), ids=MISTAKES)
def test_statistics_that_do_not_compare_are_refused(config, small, changed, parts):
    config.eval.reference = own_file(config)
    evaluate.check(experiment.build(config, training=False))
    rewrite(config.eval.reference, **changed)
    refused(config, config.eval.reference, *parts)


def test_what_is_no_npz_is_refused_and_a_pickle_is_not_opened(tmp_path, config, small):
    (tmp_path / "edm2.pkl").write_bytes(b"\x80\x04N.")
    config.eval.reference = str(tmp_path / "edm2.pkl")
    refused(config, "edm2.pkl is not an .npz", "never opened here", "numpy.savez(")
    config.eval.reference = str(tmp_path / "none.npz")
    refused(config, "there is no file of statistics", "--mode=stats", error=MissingError)


def test_without_weights_nothing_starts(tmp_path, config, monkeypatch):
    """Training neither; the config's file goes before that of the environment."""
    monkeypatch.delenv(stats.VARIABLE, raising=False)
    refused(config, inception.SOURCE_URL, "no file is named", error=MissingError)
    monkeypatch.setenv(stats.VARIABLE, "/nowhere.npz")
    refused(config, "there is no file /nowhere.npz", error=MissingError)
    config.eval.inception = "/neither.npz"
    refused(config, "there is no file /neither.npz", error=MissingError)
    with pytest.raises(MissingError, match=r"there is no file /neither\.npz"):
        train.run(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_statistics_are_of_images(config):
    config.data = base.part(base.data, "checker")
    with pytest.raises(UsageError, match="--mode=stats is of images, and data 'checker' are plane data"):
        stats.run(config)


@pytest.mark.long
def test_the_whole_way_with_a_network_of_the_real_size(tmp_path):
    """Statistics, training, evaluation by the program, on 16 images and with random weights in a file of the real
    layout: the statistics are the moments of the features that are kept beside them."""
    inception_files.write(tmp_path / "inception.npz")
    for i, image in enumerate(np.random.default_rng(0).integers(0, 256, (16, 32, 32, 3), np.uint8)):
        (tmp_path / "images").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "images" / f"{i}.png")
    config = [
        "--config=configs/lsd_images.py:folder",
        f"--config.data.dir={tmp_path / 'images'}",
        f"--config.eval.inception={tmp_path / 'inception.npz'}",
        f"--config.eval.statistics={tmp_path / 'statistics'}",
        "--config.eval.metrics=('fid','sfid','inception_score')",
        "--config.eval.num_samples=16",
        "--config.eval.batch_size=16",
        "--config.eval.steps=(1,)",
        "--config.sample.steps=(1,)",
        "--config.sample.num_samples=4",
        "--config.train.steps=2",
        "--config.train.batch_size=4",
        "--config.network.width=16",
        "--config.network.depth=1",
        "--config.network.heads=2",
        f"--workdir={tmp_path / 'run'}",
    ]
    made = launcher.start(*config, "--mode=stats", log=tmp_path / "stats")
    assert made.wait(600) == 0, made.err.read_text()
    path = made.result()["statistics"]
    assert re.fullmatch(r"folder_[0-9a-f]{16}_[0-9a-f]{8}\.npz", path.rpartition("/")[2])
    run = launcher.start(*config, "--mode=train", log=tmp_path / "train")
    assert run.wait(600) == 0, run.err.read_text()
    measured = run.result()["measurements"]
    assert measured.keys() == {"fid_16/1", "sfid_16/1", "inception_score_16/1"}
    assert measured["fid_16/1"] > 0 and 1 <= measured["inception_score_16/1"] <= 1.6
    with np.load(path) as found:
        assert found["mu_s"].shape == (2023,)
        kept = found["kept"].astype(np.float64)
        assert kept.shape == (16, 2048)
        np.testing.assert_allclose(kept.mean(axis=0), found["mu"], rtol=1e-6)
        np.testing.assert_allclose(np.cov(kept, rowvar=False), found["sigma"], rtol=1e-5, atol=1e-8)


def test_latents_are_measured_as_the_images_that_are_made_of_them(tmp_path, small, pixels):
    """Against statistics that --mode=stats made of images, which say of which; without them nothing is sampled."""
    images = base.images("flow_matching", "arrays")
    np.savez(tmp_path / "images.npz", images=np.repeat(np.repeat(pixels, 4, axis=1), 4, axis=2))
    images.data.path, images.eval.statistics = str(tmp_path / "images.npz"), str(tmp_path / "statistics")
    (tmp_path / "latents").mkdir()
    np.save(
        tmp_path / "latents" / "latents.npy", np.random.default_rng(1).normal(0, 1, (20, 4, 4, 4)).astype(np.float32)
    )
    config = base.images("flow_matching", "latents")
    config.network = base.part(base.networks, "mlp", width=8, depth=1)
    config.data.update(dir=str(tmp_path / "latents"), autoencoder=sd_autoencoder.save(tmp_path / "vae.safetensors"))
    config.train.update(steps=10, batch_size=8)
    config.eval.update(metrics=("fid",), num_samples=20, batch_size=8, steps=(1,))
    small_runs.save(config, tmp_path / "run")
    refused(config, "set eval.reference to statistics of the images")
    config.eval.reference = own_file(images)
    (row,) = evaluate.run(config, tmp_path / "run")
    assert f"48 training images {experiment.load_data(images.data).fingerprint}" in row["against"]
    exp = experiment.build(config, training=False)
    params = next(iter(evaluate.latest(exp, tmp_path / "run")[1].values()))
    made = generate.samples(exp, evaluate.program(exp), params, steps=1, seed=0, num_samples=20)
    shown = sample.shown(exp)(made.x)[:, 0, 0].astype(np.float64)
    real = pixels[:, 0, 0].astype(np.float64)
    assert row["value"] == pytest.approx(frechet(shown, real), rel=1e-3) and row["metric"] == "fid_20"
    config.data.autoencoder = ""
    with pytest.raises(UsageError, match="metric 'fid' needs image data, and these are latent data"):
        evaluate.check(experiment.build(config, training=False))
