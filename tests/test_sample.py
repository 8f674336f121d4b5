"""Sampling: what samples.npz holds, the rule of bytes, and pictures from one noise."""

import io

import jax
import numpy as np
import pytest
import sd_autoencoder
import small_runs
from PIL import Image

from configs import base
from flowmaps import autoencoders, coding, data, evaluate, experiment, generate, plots, sample, train
from flowmaps.errors import MissingError, UsageError


def npz(directory):
    with np.load(directory / "samples.npz", allow_pickle=False) as file:
        return dict(file)


def drawn(config, workdir, steps):
    exp = experiment.build(config)
    _, averages = evaluate.latest(exp, workdir)
    return sample.draw(exp, sample.check(exp), averages[0.999], steps).x


def test_images_are_saved_as_bytes_with_their_labels(tmp_path):
    config = small_runs.digits()
    small_runs.save(config, tmp_path)
    directory = sample.run(config, tmp_path)
    saved = npz(directory)
    assert {name: (x.shape, x.dtype) for name, x in saved.items()} == {
        "arr_0": ((24, 8, 8, 1), np.uint8),
        "arr_1": ((24,), np.int64),
    }
    np.testing.assert_array_equal(saved["arr_0"], data.to_uint8(drawn(config, tmp_path, 3)))
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
    grid = np.asarray(
        Image.open(
            io.BytesIO(
                sample.draw_images(exp, sample.check(exp), dict.fromkeys(made, weights), made, sample.visible)[
                    "grid.png"
                ]
            )
        )
    )
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
    sample.draw_plane(exp, dict.fromkeys(made, params), made)
    for steps, samples in made.items():
        np.testing.assert_allclose(seen[steps][-1], samples.x, rtol=1e-5, atol=1e-6)


def image(path, value, size=(20, 12)):
    Image.new("L", size, value).save(path)
    return str(path)


def test_an_image_is_noised_and_carried_on(tmp_path, monkeypatch):
    """With a velocity of 0 the samples stay x_t of the image, and the last row of the picture is the image itself."""
    config = small_runs.digits(
        sample__start=image(tmp_path / "start.png", 255), sample__start_time=0.75, sample__steps=(2, 8)
    )
    exp = experiment.build(config)
    made = {steps: sample.draw(exp, sample.check(exp), small_runs.zeros(exp), steps) for steps in (2, 8)}
    noise = np.asarray(generate.noise(exp, generate.sample_keys(0, np.arange(24))))
    for samples in made.values():
        np.testing.assert_allclose(samples.x, 0.75 + 0.25 * noise, atol=1e-6)
    assert (made[2].nfe, made[8].nfe) == (1, 2)
    drawn = []
    monkeypatch.setattr(plots, "image_grid", lambda rows: drawn.append(rows) or b"")
    sample.draw_images(exp, sample.check(exp), {}, made, sample.visible)
    (rows,) = drawn
    assert list(rows) == ["2 steps", "8 steps", "given"]
    np.testing.assert_array_equal(rows["given"], np.full((1, 8, 8, 1), 255))


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"sample__start": "nowhere.png"}, MissingError, "there is no image 'nowhere.png'"),
        ({"sample__start": __file__}, UsageError, "is not a readable image"),
        ({"sample__start": "start.png", "sample__start_time": 1.0}, UsageError, r"start_time=1.0 must lie in \[0, 1\)"),
        ({"sample__interpolations": 200}, UsageError, "there are 14. held-out pairs of one class"),
    ],
)
def test_what_cannot_be_edited_is_one_line(tmp_path, monkeypatch, fields, error, message):
    monkeypatch.chdir(tmp_path)
    image(tmp_path / "start.png", 0)
    config = small_runs.digits(**fields)
    small_runs.save(small_runs.digits(), tmp_path / "run")
    with pytest.raises(error, match=message):
        sample.run(config, tmp_path / "run")
    assert not (tmp_path / "run" / "samples").exists()


def latents(tmp_path, shape, **options):
    """The config of a small run on random latents, which is saved in tmp_path/run."""
    np.save(tmp_path / "latents.npy", np.random.default_rng(0).normal(0, 1, shape).astype(np.float32))
    config = base.digits("lsd")
    config.data = base.part(base.data, "latents", dir=str(tmp_path), **options)
    config.network.update(width=8, depth=2)
    config.sample.update(num_samples=3, steps=(1,))
    config.eval.metrics = ()
    small_runs.save(config, tmp_path / "run")
    return config


def test_latents_with_an_autoencoder_become_images(tmp_path, monkeypatch):
    """samples.npz and the picture hold what the autoencoder makes of samples and data over their scale, decoded in
    batches of which the last one is not full."""
    monkeypatch.setattr(coding, "BATCH", 1)
    rows = {}
    monkeypatch.setattr(plots, "image_grid", lambda shown: rows.update(shown) or b"")
    file = sd_autoencoder.save(tmp_path / "vae.safetensors")
    config = latents(tmp_path, (30, 4, 4, 4), scale=0.5)
    config.data.autoencoder = file
    config.sample.num_samples = 11
    directory = sample.run(config, tmp_path / "run")
    module, params = autoencoders.read(file)

    @jax.jit
    def decoded(z):
        return module.apply({"params": params}, z / 0.5, method="decode")

    (x,) = npz(directory).values()
    exact = data.to_uint8(np.asarray(decoded(drawn(config, tmp_path / "run", 1)))).astype(int)
    real = data.to_uint8(np.asarray(decoded(sample.real_like(experiment.build(config), None, 11)))).astype(int)
    assert x.shape == (11, 16, 16, 3)
    for images, expected in ((x, exact), (rows["1 step"], exact), (rows["real"], real)):
        np.testing.assert_allclose(images.astype(int), expected, atol=1)


def test_the_autoencoder_is_looked_at_before_anything_is_trained(tmp_path):
    config = latents(tmp_path, (30, 4, 4, 8))
    config.data.autoencoder = str(tmp_path / "none.safetensors")
    with pytest.raises(MissingError, match="there is no autoencoder"):
        train.build(config)
    config.data.autoencoder = sd_autoencoder.save(tmp_path / "vae.safetensors")
    with pytest.raises(UsageError, match=r"has latents of 4 channels, and these data have 8"):
        train.build(config)


def test_latents_are_kept_as_they_are_and_shown_in_colours(tmp_path):
    config = latents(tmp_path, (6, 8, 8, 16))
    directory = sample.run(config, tmp_path / "run")
    (x,) = npz(directory).values()
    assert (x.shape, x.dtype) == ((3, 8, 8, 16), np.float32)
    config.sample.start = "any.png"
    with pytest.raises(UsageError, match=r"'any\.png' is an image, and these data are latent data"):
        sample.check(experiment.build(config))


def test_planes_are_not_edited():
    with pytest.raises(UsageError, match=r"sample\.interpolations needs images and a Gaussian source"):
        sample.check(experiment.build(small_runs.plane(sample__interpolations=2)))


def test_interpolations_end_at_the_images_and_their_decoded_latents(tmp_path):
    config = small_runs.digits(sample__interpolations=2)
    exp = small_runs.save(config, tmp_path)
    _, averages = evaluate.latest(exp, tmp_path)
    rows = sample.interpolations(exp, averages[0.999])
    test = exp.dataset.test.batch(np.arange(297))
    for row in rows.values():
        assert row.shape == (2 + sample.ARC, 8, 8, 1)
        np.testing.assert_allclose(row[1], row[0], atol=1e-3)
        np.testing.assert_allclose(row[-2], row[-1], atol=1e-3)
        ends = [int(np.flatnonzero((test["x1"] == x).all(axis=(1, 2, 3)))[0]) for x in (row[0], row[-1])]
        assert test["label"][ends[0]] == test["label"][ends[1]] and ends[0] != ends[1]
