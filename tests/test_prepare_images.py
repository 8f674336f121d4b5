"""A miniature celeb_a made by scripts/prepare_images.py and read back as a TFDS data set."""

import importlib.util
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import small_celeba
from PIL import Image

from configs import flow_matching_celeba
from flowmaps import data, train
from flowmaps.data.tfds import Records
from flowmaps.errors import MissingError, UsageError

SCRIPT = Path(__file__).parents[1] / "scripts" / "prepare_images.py"
NUMBER = 24


@pytest.fixture(scope="module")
def prepare():
    """The script's function of that name."""
    specification = importlib.util.spec_from_file_location("prepare_images", SCRIPT)
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module.prepare


@pytest.fixture(scope="module")
def download(tmp_path_factory):
    """The folder of the two files that a user fetches, in the shape of CelebA's own."""
    folder = tmp_path_factory.mktemp("download")
    small_celeba.save(folder, number=NUMBER)
    return folder


@pytest.fixture(scope="module")
def celeb_a(download, tmp_path_factory):
    """A TFDS folder with the miniature celeb_a, made by the command that the error message names."""
    out = tmp_path_factory.mktemp("tfds")
    finished = subprocess.run(command(download, out), capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.splitlines()[-1] == str(out / "celeb_a" / "1.0.0")
    return out


def command(download, out):
    images, partition = download / "img_align_celeba.zip", download / "list_eval_partition.txt"
    options = ["--name=celeb_a", f"--images={images}", f"--partition={partition}", f"--out={out}"]
    return [sys.executable, str(SCRIPT), *options]


def by_pil(file, download):
    """A file of the archive, cropped and resized by PIL alone."""
    with zipfile.ZipFile(download / "img_align_celeba.zip") as archive:
        image = Image.open(io.BytesIO(archive.read(file)))
    image = image.crop((19, 39, 159, 179)).resize((64, 64), Image.Resampling.BILINEAR)
    return np.asarray(image, np.float64) / 127.5 - 1


def files(source):
    return [source.examples[i]["file_name"].decode() for i in range(len(source))]


def test_pixels_are_those_of_pil(celeb_a, download):
    dataset = data.load("tfds", dataset="celeb_a", dir=str(celeb_a), crop=140, size=64, test_split="test")
    assert (dataset.shape, dataset.num_classes, dataset.kind) == ((64, 64, 3), 0, "image")
    assert (len(dataset.train), len(dataset.test)) == (16, 4)
    for source, numbers in ((dataset.train, range(1, 17)), (dataset.test, range(21, 25))):
        names, batch = files(source), source.batch(np.arange(len(source)))
        assert sorted(names) == [f"img_align_celeba/{i:06d}.jpg" for i in numbers]
        np.testing.assert_allclose(batch["x1"], [by_pil(name, download) for name in names], atol=1e-6)
        assert batch["x1"].dtype == np.float32
        np.testing.assert_array_equal(batch["label"], np.full(len(source), -1, np.int32))


def celeba_config(folder):
    """The real config, shrunk only in width, depth and batch."""
    config = flow_matching_celeba.get_config()
    config.network.update(width=24, depth=1)
    config.train.update(batch_size=8, steps=2)
    config.data.dir = str(folder)
    return config.lock()


def test_the_config_of_celeba_trains_on_it(celeb_a, tmp_path, monkeypatch):
    monkeypatch.setattr(train, "conclude", lambda config, workdir: {})
    assert train.run(celeba_config(celeb_a), tmp_path)["step"] == 2
    last = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 2 and last["skipped"] == 0
    assert all(last[name] > 0 for name in ("loss", "flow", "grad_norm"))


def test_the_config_of_celeba_says_how_to_get_the_images(tmp_path):
    with pytest.raises(MissingError, match=r"img_align_celeba\.zip.*`python scripts/prepare_images\.py --name=celeb_a"):
        train.run(celeba_config(tmp_path / "none"), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_without_crop_and_size_the_files_are_stored_byte_for_byte(celeb_a, download):
    source = data.load("tfds", dataset="celeb_a:1.0.0", dir=str(celeb_a), split="train+validation").train
    assert source.pixels(0).shape == (218, 178, 3)
    with zipfile.ZipFile(download / "img_align_celeba.zip") as archive:
        for i, name in enumerate(files(source)):
            assert source.examples[i]["image"] == archive.read(name)


def test_cropping_at_preparation_equals_cropping_at_loading(prepare, celeb_a, download, tmp_path):
    prepare("celeb_64", str(download / "img_align_celeba.zip"), str(tmp_path), crop=140, size=64)
    source = data.load("tfds", dataset="celeb_64", dir=str(tmp_path)).train
    assert len(source) == NUMBER
    expected = [by_pil(name, download) for name in files(source)]
    np.testing.assert_allclose(source.batch(np.arange(NUMBER))["x1"], expected, atol=1e-6)


def test_processes_and_restarts_change_nothing(celeb_a):
    source = data.load("tfds", dataset="celeb_a", dir=str(celeb_a), crop=140, size=8, flip=True).train

    def take(count, **options):
        loader = data.loader(source, batch_size=12, seed=3, **options)
        return np.stack([batch["x1"] for batch in itertools.islice(loader, count)])

    whole = take(6)
    halves = [take(6, process_index=p, process_count=2) for p in range(2)]
    np.testing.assert_array_equal(np.concatenate(halves, axis=1), whole)
    np.testing.assert_array_equal(take(3, position=3), whole[3:])
    plain = data.load("tfds", dataset="celeb_a", dir=str(celeb_a), crop=140, size=8).train
    unflipped = next(data.loader(plain, batch_size=12, seed=3))["x1"]
    mirrored = (whole[0] == unflipped[:, :, ::-1]).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(whole[0][~mirrored], unflipped[~mirrored])
    assert 0 < mirrored.sum() < 12


def test_sub_folders_become_labels(prepare, tmp_path):
    for i, name in enumerate(["cat/0.png", "dog/1.png", "cat/2.png"]):
        file = tmp_path / "images" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), 50 * i, np.uint8)).save(file)
    prepare("pets", str(tmp_path / "images"), str(tmp_path))
    dataset = data.load("tfds", dataset="pets", dir=str(tmp_path))
    assert (dataset.shape, dataset.num_classes) == ((4, 4, 1), 2)
    batch = dataset.train.batch(np.arange(3))
    found = {(round((float(x[0, 0, 0]) + 1) * 127.5), int(label)) for x, label in zip(*batch.values(), strict=True)}
    assert found == {(0, 0), (50, 1), (100, 0)}


def test_missing_celeb_a_names_files_place_and_command(tmp_path):
    with pytest.raises(MissingError) as error:
        data.load("tfds", dataset="celeb_a", dir=str(tmp_path))
    for part in (
        "img_align_celeba.zip",
        "46fb89443c578308acf364d7d379fe1b9efb793042c0af734b6112e4fd3a8c74",
        "list_eval_partition.txt",
        f"put both into {tmp_path}/downloads",
        f"python scripts/prepare_images.py --name=celeb_a --images={tmp_path}/downloads/img_align_celeba.zip "
        f"--partition={tmp_path}/downloads/list_eval_partition.txt --out={tmp_path}",
    ):
        assert part in str(error.value)
    with pytest.raises(MissingError, match="tfds build cifar10 --file_format=array_record"):
        data.load("tfds", dataset="cifar10", dir=str(tmp_path))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "trian"}, "celeb_a has no split 'trian': there are train, validation, test"),
        ({"size": 64}, "image 0 of celeb_a train is 178x218, not square: set crop"),
        ({"crop": 200}, "image 0 of celeb_a train is 178x218: it has no square of side 200"),
        ({"dataset": ""}, "data.dataset is empty"),
    ],
)
def test_wrong_options_are_refused(celeb_a, options, message):
    with pytest.raises(UsageError) as error:
        data.load("tfds", **{"dataset": "celeb_a", "dir": str(celeb_a), **options})
    assert message in str(error.value)


def test_files_of_another_format_are_refused(celeb_a, tmp_path):
    folder = shutil.copytree(celeb_a / "celeb_a", tmp_path / "celeb_a") / "1.0.0"
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    for file in folder.glob("*array_record*"):
        file.rename(folder / file.name.replace("array_record", "tfrecord"))
    with pytest.raises(UsageError, match="holds tfrecord files: prepare it again with --file_format=array_record"):
        data.load("tfds", dataset="celeb_a", dir=str(tmp_path))


def test_images_of_different_sizes_are_refused_in_a_batch():
    class Examples:
        def __getitems__(self, indices):
            return [{"image": small_celeba.jpeg(i, width=8 + i, height=8)} for i in indices]

    options = {"name": "pets train", "channels": 3, "size": 0, "flip": False}
    with pytest.raises(UsageError, match=r"images of pets train are \(8, 8, 3\) and \(8, 9, 3\): set data.crop"):
        Records(Examples(), crop=0, **options).batch(np.arange(2))
    assert Records(Examples(), crop=8, **options).batch(np.arange(2))["x1"].shape == (2, 8, 8, 3)


def test_fingerprints_tell_splits_and_crops_apart(celeb_a):
    options = [{}, {"split": "train[:50%]"}, {"crop": 140}, {"crop": 140, "size": 64}]
    prints = [data.load("tfds", dataset="celeb_a", dir=str(celeb_a), **o).fingerprint for o in options]
    assert len(set(prints)) == 4
    assert data.load("tfds", dataset="celeb_a", dir=str(celeb_a)).fingerprint == prints[0]


def archive(path, broken=None):
    """Thirty images, of which one may be broken."""
    with zipfile.ZipFile(path, "w") as file:
        for i in range(30):
            file.writestr(f"{i:02d}.jpg", small_celeba.jpeg(i, 32, 32)[: -100 if i == broken else None])
    return str(path)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def small_shards(prepare, monkeypatch):
    monkeypatch.setitem(prepare.__globals__, "SMALLEST", 8)


def test_a_broken_image_is_mended_and_the_same_command_goes_on(prepare, small_shards, tmp_path):
    """What was finished is kept, and the data set is that of images that never were broken."""
    prepare("pets", archive(tmp_path / "images.zip"), str(tmp_path / "whole"))
    out = tmp_path / "tfds"
    with pytest.raises(UsageError, match=r"images\.zip/03\.jpg is a broken image"):
        prepare("pets", archive(tmp_path / "images.zip", broken=3), str(out))
    with pytest.raises(MissingError, match="the data set pets is not in"):
        data.load("tfds", dataset="pets", dir=str(out))
    kept = {path: path.stat().st_mtime_ns for path in (out / "pets").glob("*/*array_record*")}
    assert 0 < len(kept) < 4 and not list(out.rglob(".*"))
    prepare("pets", archive(tmp_path / "images.zip"), str(out))
    assert contents(out / "pets" / "1.0.0") == contents(tmp_path / "whole" / "pets" / "1.0.0")
    finished = {path: path.stat().st_mtime_ns for path in (out / "pets" / "1.0.0").glob("*array_record*")}
    assert {path.name: time for path, time in kept.items()}.items() <= {p.name: t for p, t in finished.items()}.items()
    assert len(data.load("tfds", dataset="pets", dir=str(out)).train) == 30


def test_several_processes_make_the_files_of_one(prepare, small_shards, tmp_path):
    images = archive(tmp_path / "images.zip")
    prepare("pets", images, str(tmp_path / "one"))
    left = prepare("pets", images, str(tmp_path / "two"), shard="1/2")
    assert left == f"{tmp_path / 'two' / 'pets' / '1.0.0'}: 2 of 4 files are left to other processes"
    assert prepare("pets", images, str(tmp_path / "two"), shard="0/2") == str(tmp_path / "two" / "pets" / "1.0.0")
    assert contents(tmp_path / "two" / "pets" / "1.0.0") == contents(tmp_path / "one" / "pets" / "1.0.0")


def test_other_options_are_not_mixed_in(prepare, small_shards, tmp_path):
    images = archive(tmp_path / "images.zip")
    prepare("pets", images, str(tmp_path), shard="0/2", size=16)
    with pytest.raises(UsageError, match=r"1\.0\.0\.incomplete was begun with .*'size': 16.* and not .*'size': 8"):
        prepare("pets", images, str(tmp_path), size=8)


def test_a_part_of_a_split_has_all_classes(prepare, tmp_path):
    """Files come by their names, and so by their classes; the data set has them in a random order."""
    for i in range(60):
        file = tmp_path / "images" / f"{i // 20}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4), i, np.uint8)).save(file)
    prepare("pets", str(tmp_path / "images"), str(tmp_path))
    part = data.load("tfds", dataset="pets", dir=str(tmp_path), split="train[:50%]").train
    assert (np.bincount(part.batch(np.arange(30))["label"]) > 3).all()


def test_a_full_disk_is_one_line_and_leaves_no_part(prepare, small_shards, tmp_path, monkeypatch):
    from array_record.python import array_record_module

    class Full:
        def __init__(self, path, _):
            Path(path).write_bytes(b"some")

        def write(self, _):
            raise RuntimeError("write() failed: No space left on device; writing x; at byte 0")

    monkeypatch.setattr(array_record_module, "ArrayRecordWriter", Full)
    with pytest.raises(UsageError, match=r"cannot be written \(write\(\) failed: No space left on device\): make room"):
        prepare("pets", archive(tmp_path / "images.zip"), str(tmp_path))
    assert [path.name for path in (tmp_path / "pets").glob("*/*")] == ["preparation.json"]


def test_an_image_of_another_size_is_named(prepare, tmp_path):
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for i in range(3):
            archive.writestr(f"{i}.jpg", small_celeba.jpeg(i, width=178 + i // 2))
    with pytest.raises(UsageError, match=r"2\.jpg is 179x218, but .*0\.jpg is 178x218"):
        prepare("sizes", str(tmp_path / "images.zip"), str(tmp_path / "tfds"))


def test_the_script_fails_in_one_line(celeb_a, download, tmp_path):
    def lines(arguments):
        finished = subprocess.run(arguments, capture_output=True, text=True)
        return finished.returncode, finished.stdout, finished.stderr.strip().splitlines()

    code, out, errors = lines(command(download, celeb_a))
    assert (code, out, len(errors)) == (1, "", 1) and "is there already" in errors[0]
    code, out, errors = lines(command(tmp_path, tmp_path))
    assert (code, out, len(errors)) == (2, "", 1) and "there is no folder or .zip archive" in errors[0]


def test_partitions_and_names_are_checked(prepare, download, tmp_path):
    images = str(download / "img_align_celeba.zip")
    (tmp_path / "short.txt").write_text("000001.jpg 0\n")
    with pytest.raises(UsageError, match=r"has no line for the image img_align_celeba/000002\.jpg"):
        prepare("celeb_a", images, str(tmp_path), partition=str(tmp_path / "short.txt"))
    with pytest.raises(MissingError, match="there is no partition file"):
        prepare("celeb_a", images, str(tmp_path), partition="/nowhere.txt")
    with pytest.raises(UsageError, match="'Celeb-A' cannot name a TFDS data set"):
        prepare("Celeb-A", images, str(tmp_path))


def test_a_killed_preparation_is_not_taken_for_a_data_set(download, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    content = small_celeba.jpeg(0, width=600, height=600)
    for i in range(400):
        (images / f"{i}.jpg").write_bytes(content)
    arguments = [sys.executable, str(SCRIPT), "--name=many", f"--images={images}", f"--out={tmp_path}", "--size=599"]
    running = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("many/*/.many*")) and running.poll() is None:
        time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    with pytest.raises(MissingError, match="the data set many is not in"):
        data.load("tfds", dataset="many", dir=str(tmp_path))
