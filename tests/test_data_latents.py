"""Latents on disk: scaled, read by row, and what is wrong with a folder in one line."""

import numpy as np
import pytest

from flowmaps import data
from flowmaps.errors import MissingError, UsageError


@pytest.fixture
def folder(tmp_path):
    np.save(tmp_path / "latents.npy", np.random.default_rng(0).normal(0, 5, (10, 4, 4, 2)).astype(np.float16))
    np.save(tmp_path / "labels.npy", np.arange(10) % 3)
    return tmp_path


def test_rows_are_the_arrays_times_the_scale(folder):
    dataset = data.load("latents", dir=str(folder), scale=0.2)
    assert (dataset.shape, dataset.num_classes, dataset.kind, len(dataset.train)) == ((4, 4, 2), 3, "latent", 10)
    batch = dataset.train.batch(np.array([7, 2]))
    assert batch["x1"].dtype == np.float32
    np.testing.assert_allclose(batch["x1"], 0.2 * np.load(folder / "latents.npy")[[7, 2]].astype(np.float32), rtol=1e-6)
    np.testing.assert_array_equal(batch["label"], [1, 2])
    (folder / "labels.npy").unlink()
    plain = data.load("latents", dir=str(folder), scale=0.2)
    assert plain.num_classes == 0 and plain.fingerprint != dataset.fingerprint


@pytest.mark.parametrize(
    ("latents", "labels", "error", "message"),
    [
        (None, None, MissingError, r"there are no latents in .*: make them with `python scripts/enc"),
        (b"not an array", None, UsageError, r"latents\.npy is not a readable \.npy file"),
        (np.zeros((3, 4, 4, 2), np.uint8), None, UsageError, r"is uint8 \[3, 4, 4, 2\], not float16 or float32"),
        (np.zeros((3, 4, 4, 2), np.float32), np.zeros(2, int), UsageError, r"int64 \[2\], .* each of the 3 latents"),
    ],
)
def test_what_is_wrong_with_a_folder_is_told(tmp_path, latents, labels, error, message):
    if isinstance(latents, bytes):
        (tmp_path / "latents.npy").write_bytes(latents)
    elif latents is not None:
        np.save(tmp_path / "latents.npy", latents)
    if labels is not None:
        np.save(tmp_path / "labels.npy", labels)
    with pytest.raises(error, match=message):
        data.load("latents", dir=str(tmp_path))
