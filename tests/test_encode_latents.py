"""Latents made by scripts/encode_latents.py: what is stored, how it is taken up again, and what is drawn from it."""

import errno
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from pathlib import Path

import jax
import numpy as np
import pytest
import sd_autoencoder

from flowmaps import autoencoders, coding, data, latent_files
from flowmaps.errors import MissingError, UsageError

SCRIPT = Path(__file__).parents[1] / "scripts" / "encode_latents.py"
NUMBER, SHARD = 21, 8


@pytest.fixture(scope="module")
def script():
    specification = importlib.util.spec_from_file_location("encode_latents", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A file of images, its name as --data, and the file of an autoencoder."""
    folder = tmp_path_factory.mktemp("given")
    x = np.random.default_rng(0).integers(0, 256, (NUMBER, 8, 16, 3), np.uint8)
    np.savez(folder / "x.npz", x=x, y=np.arange(NUMBER) % 3)
    weights = sd_autoencoder.save(folder / "vae.safetensors")
    return {"data": f"arrays(path='{folder / 'x.npz'}')", "autoencoder": weights}


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(latent_files, "SMALLEST", SHARD)


@pytest.fixture(scope="module")
def encoded(script, given, tmp_path_factory):
    """The folder of the latents and their mirror images, in float32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent_files, "SMALLEST", SHARD)
        out = tmp_path_factory.mktemp("latents")
        assert script.encode(**given, out=str(out), flip=True, dtype="float32", batch_size=1) == str(out)
    return out


@pytest.fixture(scope="module")
def moments(script, given):
    """Mean and std of the images and of their mirror images [n, 2, h, w, z], by the autoencoder itself."""
    x = script.images(given["data"]).train.batch(np.arange(NUMBER))["x1"]
    module, params = autoencoders.read(given["autoencoder"])
    encode = jax.jit(lambda params, x: module.apply({"params": params}, x, method="encode"))
    copies = [encode(params, copy) for copy in (x, x[:, :, ::-1])]
    return tuple(np.stack(parts, axis=1) for parts in zip(*copies, strict=True))


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_gaussians_of_all_images_and_mirror_images_are_stored(encoded, moments):
    shards = [np.load(encoded / f"latents-{i:05d}-of-00003.npy") for i in range(3)]
    assert [len(shard) for shard in shards] == [8, 8, 5]
    records = np.concatenate(shards)
    for name, expected in zip(("mean", "std"), moments, strict=True):
        assert records[name].shape == (NUMBER, 2, 2, 4, 4)
        np.testing.assert_allclose(records[name], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(records["label"], np.arange(NUMBER) % 3)
    assert not list(encoded.glob(".*"))


def test_statistics_are_those_of_draws(encoded, moments):
    """E m and Var m + E s^2 of each channel."""
    found = json.loads((encoded / "statistics.json").read_text())
    mean, std = (part.astype(np.float64).reshape(-1, 4) for part in moments)
    np.testing.assert_allclose(found["mean"], mean.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(found["std"], np.sqrt(mean.var(axis=0) + (std**2).mean(axis=0)), rtol=1e-4)


def test_draws_have_the_law_of_the_stored_gaussians(encoded, moments):
    """Over epochs, the noise (z / scale - mean) / std of the copy that was taken is standard normal, and each copy is
    taken half of the time."""
    dataset = data.load("latents", dir=str(encoded), scale=0.5)
    assert (dataset.shape, dataset.num_classes, dataset.kind, len(dataset.train)) == ((2, 4, 4), 3, "latent", NUMBER)
    epochs = 400
    rows, epoch = np.tile(np.arange(NUMBER), epochs), np.repeat(np.arange(epochs), NUMBER)
    batch = dataset.train.batch(rows, 3, epoch)
    np.testing.assert_array_equal(batch["label"], rows % 3)
    noise = (batch["x1"][:, None] / 0.5 - moments[0][rows]) / moments[1][rows]
    copy = np.argmin((noise**2).sum(axis=(2, 3, 4)), axis=1)
    np.testing.assert_allclose(copy.mean(), 0.5, atol=2 / np.sqrt(len(rows)))
    noise = np.take_along_axis(noise, copy[:, None, None, None, None], axis=1).astype(np.float64)
    error = 4 / np.sqrt(noise.size)
    np.testing.assert_allclose(noise.mean(), 0, atol=error)
    np.testing.assert_allclose((noise**2).mean(), 1, atol=error * np.sqrt(2))
    np.testing.assert_allclose((noise**4).mean(), 3, atol=error * np.sqrt(96))
    flat = noise.reshape(len(rows), -1)
    np.testing.assert_allclose(np.corrcoef(flat.T) - np.eye(flat.shape[1]), 0, atol=5 / np.sqrt(len(rows)))
    np.testing.assert_allclose((flat[:-NUMBER] * flat[NUMBER:]).mean(), 0, atol=error)  # of two epochs


def test_a_draw_belongs_to_its_row(encoded):
    """It depends on (seed, epoch, index) alone, so that processes and restarts change nothing."""
    source = data.load("latents", dir=str(encoded)).train
    whole = source.batch(np.arange(NUMBER), 1, 2)["x1"]
    some = np.array([20, 3, 20, 8])
    np.testing.assert_array_equal(source.batch(some, 1, np.full(4, 2))["x1"], whole[some])
    assert (source.batch(some, 1, 3)["x1"] != whole[some]).mean() > 0.99
    assert (source.batch(some, 2, 2)["x1"] != whole[some]).mean() > 0.99
    batches = [next(data.loader(source, batch_size=8, seed=5, process_index=p, process_count=2)) for p in (0, 1)]
    together = next(data.loader(source, batch_size=8, seed=5))["x1"]
    np.testing.assert_array_equal(np.concatenate([batch["x1"] for batch in batches]), together)
    again = data.loader(source, batch_size=8, seed=5)
    third = [next(again) for _ in range(3)][2]
    np.testing.assert_array_equal(next(data.loader(source, batch_size=8, seed=5, position=2))["x1"], third["x1"])


def test_without_mirror_images_and_in_float16(script, given, moments, tmp_path):
    script.encode(**given, out=str(tmp_path), batch_size=1)
    source = data.load("latents", dir=str(tmp_path), scale=1.0).train
    assert source.shards[0].dtype["mean"].base == np.float16
    mean, std = source.moments(np.arange(NUMBER), np.arange(NUMBER) % 2 == 1)
    np.testing.assert_allclose(mean, moments[0][:, 0], rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(std, moments[1][:, 0], rtol=1e-3)


def test_shards_of_several_processes_and_of_one_are_the_same_files(script, given, encoded, tmp_path):
    options = {**given, "out": str(tmp_path), "flip": True, "dtype": "float32", "batch_size": 1}
    assert script.encode(**options, shard="1/2") == f"{tmp_path}: 2 of 3 files are left to other processes"
    with pytest.raises(MissingError, match="are not finished, 2 of 3 files are missing: give the command"):
        data.load("latents", dir=str(tmp_path))
    assert script.encode(**options, shard="0/2") == str(tmp_path)
    assert contents(tmp_path) == contents(encoded)


def test_finished_files_are_kept_and_the_others_made(script, given, encoded, tmp_path, monkeypatch):
    options = {**given, "out": str(tmp_path), "flip": True, "dtype": "float32", "batch_size": 1}
    write, written = latent_files.write, []

    def until_killed(file, records):
        if written:
            (tmp_path / f".{file.name}.77").write_bytes(b"cut short")
            raise KeyboardInterrupt
        written.append(file)
        write(file, records)

    monkeypatch.setattr(latent_files, "write", until_killed)
    with pytest.raises(KeyboardInterrupt):
        script.encode(**options)
    monkeypatch.setattr(latent_files, "write", lambda file, records: written.append(file) or write(file, records))
    script.encode(**options)
    assert [file.name[8:13] for file in written] == ["00000", "00001", "00002"]
    assert contents(tmp_path) == contents(encoded)


def test_latents_are_decoded_by_autoencoders_with_their_encoder_alone(encoded, tmp_path):
    """The decoder may be tuned, as those of Stable Diffusion's are; of an array nothing is known."""
    arrays = sd_autoencoder.weights(sd_autoencoder.golden()["shapes"])
    tuned, other = (
        sd_autoencoder.save(tmp_path / name, {**arrays, name: arrays[name] + 1})
        for name in ("decoder.conv_in.bias", "encoder.conv_in.bias")
    )
    refused = r"encoder.conv_in.bias' has another encoder than .* these latents, which it cannot decode: give the file"
    for folder in (encoded, tmp_path):
        np.save(tmp_path / "latents.npy", np.zeros((2, 2, 4, 4), np.float32))
        read = [data.load("latents", dir=str(folder), autoencoder=file).coding for file in (tuned, other)]
        assert coding.read(read[0]).params["decoder"]["conv_in"]["bias"][0] == arrays["decoder.conv_in.bias"][0] + 1
        with pytest.raises(UsageError, match=refused) if folder == encoded else nullcontext():
            coding.read(read[1])


def test_other_latents_are_not_mixed_in(script, given, encoded):
    with pytest.raises(UsageError, match=r"holds other latents, copies 2 and not 1: remove the folder"):
        script.encode(**given, out=str(encoded), dtype="float32")


def test_a_full_disk_is_one_line_and_leaves_no_part(script, given, tmp_path, monkeypatch):
    def full(file, *_, **__):
        file.write(b"some")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    options = {**given, "out": str(tmp_path), "batch_size": 1}
    script.encode(**options, shard="0/3")
    with monkeypatch.context() as patch, pytest.raises(UsageError) as error:
        patch.setattr(np, "save", full)
        script.encode(**options)
    assert "latents-00001-of-00003.npy cannot be written (No space left on device): make room" in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} == {"latents.json", "latents-00000-of-00003.npy"}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"data": "checker"}, UsageError, "--data='checker' are plane data, not images"),
        ({"data": "digits"}, UsageError, "are digits data, not images"),
        ({"data": "folder(flip=True)"}, UsageError, "leave its flip out, and give --flip to encode both"),
        ({"data": "folder dir"}, UsageError, r"--data 'folder dir' is neither a name nor NAME\(OPTION=VALUE, \.\.\.\)"),
        ({"shard": "2/2"}, UsageError, "--shard='2/2' is not I/N with I from 0 to N - 1"),
        ({"autoencoder": "none"}, MissingError, "there is no autoencoder none"),
    ],
)
def test_what_cannot_be_encoded_is_told(script, given, tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        script.encode(**{**given, "out": str(tmp_path / "out"), **change})
    assert not (tmp_path / "out").exists()


def test_the_program_says_where_the_latents_are_or_fails_in_one_line(script, given, encoded, capsys):
    options = [f"--{name}={value}" for name, value in given.items()]
    script.main([*options, f"--out={encoded}", "--flip", "--dtype=float32"])
    assert capsys.readouterr().out == f"{encoded}\n"
    with pytest.raises(SystemExit) as ended:
        script.main([*options, f"--out={encoded}", "--autoencoder=/none"])
    out, errors = capsys.readouterr()
    assert (ended.value.code, out, errors.count("\n")) == (2, "", 1) and "no autoencoder /none" in errors


def test_a_file_cut_short_is_named(encoded, tmp_path):
    for path in encoded.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    shard = tmp_path / "latents-00001-of-00003.npy"
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(UsageError, match=r"latents-00001-of-00003\.npy is not a readable \.npy file"):
        data.load("latents", dir=str(tmp_path))


@pytest.mark.parametrize(("shape", "told"), [((8, 10, 3), "8x10 with 3"), ((8, 8), "8x8 with 1")])
def test_images_that_do_not_fit_are_told(script, given, tmp_path, shape, told):
    np.savez(tmp_path / "x.npz", x=np.zeros((2, *shape), np.uint8))
    options = {**given, "data": f"arrays(path='{tmp_path / 'x.npz'}')", "out": str(tmp_path / "out")}
    with pytest.raises(
        UsageError, match=f"are {told} channels, and the autoencoder takes 3 channels .* multiples of 4"
    ):
        script.encode(**options)


@pytest.mark.long
def test_a_kill_at_any_moment_loses_only_files_that_are_not_whole(given, tmp_path):
    """The program is killed again and again, and in the end its files are those of one that never was."""
    x = np.random.default_rng(0).integers(0, 256, (1200, 8, 16, 3), np.uint8)
    np.savez(tmp_path / "x.npz", x=x)

    def command(out):
        chosen = [f"--data=arrays(path='{tmp_path / 'x.npz'}')", f"--autoencoder={given['autoencoder']}"]
        return [sys.executable, str(SCRIPT), *chosen, f"--out={tmp_path / out}"]

    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    assert subprocess.run(command("whole"), **quiet).returncode == 0
    kills = 0
    for number in range(3):
        running = subprocess.Popen(command("killed"), **quiet)
        while running.poll() is None and len(list(tmp_path.glob("killed/latents-*"))) <= number:
            time.sleep(0.01)
        running.send_signal(signal.SIGKILL)
        kills += running.wait() == -signal.SIGKILL
    assert kills == 3
    assert subprocess.run(command("killed"), **quiet).returncode == 0
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
