"""Inception-v3: the architecture against torch-fidelity's, the resize against a loop, and which files are refused."""

import hashlib
import sys
from pathlib import Path

import inception_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps.errors import MissingError, UsageError
from flowmaps.metrics import _inception, inception
from flowmaps.metrics.digest import sha256_of_arrays
from scripts import convert_inception

GOLDEN = Path(__file__).with_name("inception_golden.npz")


@pytest.fixture(scope="module")
def weights():
    return inception_files.weights()


@pytest.fixture
def few(monkeypatch):
    """Two arrays, for tests of what the file is held to: all of them take a while to write."""
    made = {"conv.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "fc.weight": np.ones((4, 2), np.float32)}
    monkeypatch.setattr(inception, "shapes", lambda: {name: array.shape for name, array in made.items()})
    return made


def read(tmp_path, **arrays):
    np.savez(tmp_path / "inception.npz", **arrays)
    return inception.read(tmp_path / "inception.npz")


def honest(weights):
    return {**weights, "arrays_sha256": sha256_of_arrays(weights), "source_sha256": inception.SOURCE_SHA256}


def test_features_are_those_of_torch_fidelity(weights):
    """The golden file holds what its class FeatureExtractorInceptionV3 (0.4.0, on PyTorch 2.13) makes of the same
    weights and images. Counting the padding in averages would move the pool by 3e-2 of its largest value, a mean in the
    place of the last maximum by 2e-1."""
    computed = jax.jit(inception.apply)(inception.variables(weights), inception_files.images())
    with np.load(GOLDEN) as expected:
        for name in _inception.Features._fields:
            scale = np.abs(expected[name]).max()
            np.testing.assert_allclose(getattr(computed, name), expected[name], atol=3e-6 * scale)


def test_the_file_has_472_arrays_with_the_names_of_pytorch():
    shapes = inception.shapes()
    assert len(shapes) == 472
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 23_885_392
    assert shapes["Conv2d_1a_3x3.conv.weight"] == (32, 3, 3, 3)
    assert shapes["Mixed_6b.branch7x7_2.conv.weight"] == (128, 128, 1, 7)
    assert shapes["Mixed_7c.branch3x3dbl_3b.conv.weight"] == (384, 384, 3, 1)
    assert shapes["Mixed_5b.branch_pool.bn.running_var"] == (32,)
    assert (shapes["fc.weight"], shapes["fc.bias"]) == ((1008, 2048), (1008,))
    listed = "".join(f"{name} {shapes[name]}\n" for name in sorted(shapes))
    known = "87badd6119d153f743dad99415ac662a5bf60b5f96c33d57ca0ff979a6262846"
    assert hashlib.sha256(listed.encode()).hexdigest() == known  # of the list that torch-fidelity's state dict gives


def loop_resized(image, side):
    height, width, _ = image.shape
    out = np.zeros((side, side, 3))
    for i in range(side):
        for j in range(side):
            y, x = np.float32(i) * np.float32(height / side), np.float32(j) * np.float32(width / side)  # as it counts
            top, left = int(y), int(x)
            bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
            upper = (1 - (x - left)) * image[top, left] + (x - left) * image[top, right]
            lower = (1 - (x - left)) * image[bottom, left] + (x - left) * image[bottom, right]
            out[i, j] = (1 - (y - top)) * upper + (y - top) * lower
    return out


@pytest.mark.parametrize("size", [(8, 12), (299, 299), (320, 301)])
def test_the_resize_is_that_of_tensorflow_1(size):
    """Also where an image becomes smaller, with no smoothing; corners are aligned, not centres."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.float32)
    computed = np.asarray(_inception.resized(jnp.asarray(image)[None]))[0]
    np.testing.assert_allclose(computed, loop_resized(image, 299), atol=2e-3)
    if size == (299, 299):
        np.testing.assert_array_equal(computed, image)


def test_an_average_leaves_out_what_lies_outside():
    ones = jnp.ones((1, 4, 5, 2))
    np.testing.assert_allclose(_inception.average(ones), ones, rtol=1e-6)


def test_a_file_is_read_as_it_was_written(tmp_path, few):
    (tmp_path / "inception.npz").write_bytes(inception.packed(few, inception.SOURCE_SHA256))
    found = inception.read(tmp_path / "inception.npz")
    assert found.keys() == few.keys()
    assert all(np.array_equal(found[name], few[name]) for name in few)


def test_no_file_says_what_to_fetch_and_to_run(tmp_path):
    for path, reason in ((None, "no file is named"), (tmp_path / "none.npz", "there is no file")):
        with pytest.raises(MissingError) as error:
            inception.read(path)
        said = str(error.value)
        assert reason in said and "\n" not in said
        for part in (inception.SOURCE_URL, inception.SOURCE_SHA256, "convert_inception.py", "FLOWMAPS_INCEPTION"):
            assert part in said


def test_another_file_is_refused_in_one_line(tmp_path, few):
    good, fc = honest(few), "fc.weight"
    others = {
        "has no array 'fc.weight'": {name: array for name, array in good.items() if name != fc},
        "has an array 'AuxLogits'": {**good, "AuxLogits": np.zeros(3, np.float32)},
        "fc.weight is (3, 2), not (4, 2)": {**good, fc: good[fc][:3]},
        "is damaged": {**good, fc: good[fc] + 1},
        "not pt_inception-2015-12-05-6726825d.pth": {**good, "source_sha256": "0" * 64},
    }
    for match, arrays in others.items():
        with pytest.raises(UsageError) as error:
            read(tmp_path, **arrays)
        assert match in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_npz_or_holds_objects_is_refused(tmp_path):
    (tmp_path / "page.npz").write_text("<html>")
    with pytest.raises(UsageError, match=r"page\.npz is not an \.npz of Inception-v3's weights"):
        inception.read(tmp_path / "page.npz")
    with pytest.raises(UsageError, match=r"is not an \.npz of Inception-v3's weights"):
        read(tmp_path, arrays=np.array([{}], object))


def test_the_converter_takes_the_known_file_alone(tmp_path, capsys):
    (tmp_path / "other.pth").write_bytes(b"weights of another network")
    for source, code, match in (("other.pth", 1, "has the sha256"), ("none.pth", 2, "there is no file")):
        with pytest.raises(SystemExit) as ended:
            convert_inception.main([str(tmp_path / source), str(tmp_path / "out.npz")])
        said = capsys.readouterr().err
        assert ended.value.code == code and match in said and said.count("\n") == 1
    assert not (tmp_path / "out.npz").exists()


def test_the_converter_records_what_it_read(tmp_path, monkeypatch, few):
    """With arrays in the place of PyTorch's, whose file cannot be had here."""
    monkeypatch.setattr(convert_inception, "arrays", lambda source: few)
    (tmp_path / "in.pth").write_bytes(b"the real one")
    digest = hashlib.sha256(b"the real one").hexdigest()
    monkeypatch.setattr(inception, "SOURCE_SHA256", digest)
    found = inception.read(convert_inception.convert(tmp_path / "in.pth", tmp_path / "out.npz"))
    assert sha256_of_arrays(found) == sha256_of_arrays(few)
    assert "torch" not in sys.modules


def test_the_converter_reads_what_pytorch_writes(tmp_path, weights):
    torch = pytest.importorskip("torch")
    state = {name: torch.from_numpy(array) for name, array in weights.items()}
    torch.save({**state, "Mixed_5b.branch1x1.bn.num_batches_tracked": torch.tensor(3)}, tmp_path / "in.pth")
    found = convert_inception.arrays(tmp_path / "in.pth")
    assert found.keys() == weights.keys()
    assert sha256_of_arrays(found) == sha256_of_arrays(weights)


@pytest.mark.long
def test_features_are_those_of_the_torch_fidelity_that_is_installed(tmp_path, weights):
    """As the golden file, with weights of another seed."""
    torch = pytest.importorskip("torch")
    theirs = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    other = inception_files.weights(seed=7)
    names = ("2048", "logits_unbiased")
    state = {name: torch.from_numpy(array) for name, array in other.items()}
    counters = {f"{n.removesuffix('running_var')}num_batches_tracked": torch.tensor(0) for n in other if "_var" in n}
    torch.save({**state, **counters}, tmp_path / "in.pth")
    network = theirs.FeatureExtractorInceptionV3("inception", list(names), str(tmp_path / "in.pth"))
    images = inception_files.images()
    expected = network(torch.from_numpy(images).permute(0, 3, 1, 2).contiguous())
    computed = jax.jit(inception.apply)(inception.variables(other), images)
    for array, reference in zip((computed.pool, computed.logits), expected, strict=True):
        np.testing.assert_allclose(array, reference.numpy(), atol=3e-6 * float(reference.abs().max()))
