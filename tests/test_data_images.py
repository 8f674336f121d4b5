"""Folders, archives and arrays of images: what is read, and what is refused by name."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image

from flowmaps import data
from flowmaps.errors import MissingError, UsageError


def picture(seed, width=8, height=8, mode="RGB"):
    shape = (height, width) if mode == "L" else (height, width, len(mode))
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8))


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def all_of(source):
    batch = source.batch(np.arange(len(source)))
    return batch["x1"], batch["label"]


def unit(image):
    return (np.asarray(image, np.float64) / 127.5 - 1).astype(np.float32)


def test_sub_folders_are_classes_and_pixels_are_those_of_the_files(tmp_path):
    pictures = {"bird/b.png": picture(0), "bird/a.jpg": picture(1), "ape/deep/c.png": picture(2)}
    for name, image in pictures.items():
        save(tmp_path / name, image)
    (tmp_path / "bird" / "notes.txt").write_text("not an image")
    (tmp_path / ".hidden.png").write_text("nor this")
    dataset = data.load("folder", dir=str(tmp_path))
    x, labels = all_of(dataset.train)
    assert (dataset.shape, dataset.num_classes, dataset.kind, dataset.test) == ((8, 8, 3), 2, "image", None)
    expected = [Image.open(tmp_path / name) for name in ("ape/deep/c.png", "bird/a.jpg", "bird/b.png")]
    np.testing.assert_allclose(x, np.stack([unit(image) for image in expected]), atol=1e-7)
    np.testing.assert_array_equal(labels, [0, 1, 1])
    assert x.dtype == np.float32 and labels.dtype == np.int32


def test_an_archive_is_read_like_a_folder(tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for i in range(5):
            path = save(tmp_path / "files" / f"{i}.png", picture(i))
            archive.write(path, f"top/{i}.png")
        archive.writestr("__MACOSX/top/._0.png", "not an image")
    folder, packed = (data.load("folder", dir=str(tmp_path / name)) for name in ("files", "all.zip"))
    np.testing.assert_array_equal(all_of(folder.train)[0], all_of(packed.train)[0])
    np.testing.assert_array_equal(all_of(packed.train)[1], np.full(5, -1))
    assert folder.num_classes == packed.num_classes == 0
    assert folder.fingerprint == packed.fingerprint


def test_grey_images_have_one_channel_unless_others_are_in_colour(tmp_path):
    grey = save(tmp_path / "a.png", picture(0, mode="L"))
    assert data.load("folder", dir=str(tmp_path)).shape == (8, 8, 1)
    save(tmp_path / "b.png", picture(1))
    x, _ = all_of(data.load("folder", dir=str(tmp_path)).train)
    np.testing.assert_allclose(x[0], np.repeat(unit(Image.open(grey))[..., None], 3, axis=2), atol=1e-7)


def test_what_is_transparent_becomes_white(tmp_path):
    image = picture(0, mode="RGBA")
    image.putalpha(Image.fromarray(np.tile(np.array([0, 255] * 4, np.uint8), (8, 1))))
    save(tmp_path / "a.png", image)
    x, _ = all_of(data.load("folder", dir=str(tmp_path)).train)
    assert (x[0, :, ::2] == 1).all()
    np.testing.assert_allclose(x[0, :, 1::2], unit(image)[:, 1::2, :3], atol=1e-7)


@pytest.mark.parametrize(
    ("options", "box", "side"),
    [
        ({"crop": 20}, (7, 2, 27, 22), None),  # the odd margin 15 is split 7 and 8
        ({"crop": -1}, (5, 0, 30, 25), None),
        ({"crop": -1, "size": 10, "resize": True}, (5, 0, 30, 25), 10),
        ({"crop": 20, "size": 20}, (7, 2, 27, 22), None),
    ],
)
def test_crop_and_resize_are_pils(tmp_path, options, box, side):
    image = picture(0, width=35, height=25)
    save(tmp_path / "a.png", image)
    expected = image.crop(box)
    if side:
        expected = expected.resize((side, side), Image.Resampling.BILINEAR)
    x, _ = all_of(data.load("folder", dir=str(tmp_path), **options).train)
    np.testing.assert_allclose(x[0], unit(expected), atol=1e-7)


def broken(tmp_path):
    save(tmp_path / "a.png", picture(0))
    whole = save(tmp_path / "b.png", picture(1)).read_bytes()
    return tmp_path / "b.png", whole


def refused(tmp_path, match, **options):
    with pytest.raises(UsageError) as error:
        data.load("folder", **{"dir": str(tmp_path), **options})
    assert match in str(error.value) and "\n" not in str(error.value)


def test_a_truncated_file_is_named(tmp_path):
    file, whole = broken(tmp_path)
    file.write_bytes(whole[: len(whole) // 2])
    refused(tmp_path, f"{file} is a broken image")


def test_a_file_that_is_no_image_is_named(tmp_path):
    file, _ = broken(tmp_path)
    file.write_bytes(b"<html>quota exceeded</html>")
    refused(tmp_path, f"{file} is not a readable image")


def test_an_empty_file_is_named(tmp_path):
    file, _ = broken(tmp_path)
    file.write_bytes(b"")
    refused(tmp_path, f"{file} is not a readable image")


def test_pixels_of_sixteen_bits_are_named(tmp_path):
    file, _ = broken(tmp_path)
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(file)
    refused(tmp_path, f"{file} has pixels of more than 8 bits")


def test_a_file_of_another_size_is_named(tmp_path):
    save(tmp_path / "a.png", picture(0))
    other = save(tmp_path / "b.png", picture(1, width=9))
    refused(tmp_path, f"{other} is 9x8, not 8x8")
    refused(tmp_path, f"{tmp_path / 'a.png'} is 8x8, not 16x16", size=16)
    refused(tmp_path, f"{other} is 9x8, not square", size=16, resize=True)
    refused(tmp_path, f"{tmp_path / 'a.png'} is 8x8: it has no square of side 9", crop=9)
    assert data.load("folder", dir=str(tmp_path), size=16, resize=True, crop=-1).shape == (16, 16, 3)


def test_what_else_is_refused(tmp_path):
    refused(tmp_path, "holds no images")
    refused(tmp_path, "data.dir is empty", dir="")
    refused(tmp_path, "data.resize needs data.size", resize=True)
    page = tmp_path / "img_align_celeba.zip"
    page.write_text("<html>quota exceeded</html>")
    refused(tmp_path, f"{page} (27 bytes) is not a zip archive", dir=str(page))
    save(tmp_path / "a.png", picture(0))
    save(tmp_path / "bird" / "b.png", picture(0))
    refused(tmp_path, "outside of them (a.png)")
    with pytest.raises(MissingError, match=r"there is no folder or \.zip archive /nowhere"):
        data.load("folder", dir="/nowhere")


def test_a_damaged_entry_of_an_archive_is_named(tmp_path):
    file = tmp_path / "all.zip"
    buffer = io.BytesIO()
    picture(0).save(buffer, format="PNG")
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a.png", buffer.getvalue())
    content = bytearray(file.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 255
    file.write_bytes(content)
    refused(tmp_path, f"{file}/a.png is not a readable image: Bad CRC-32", dir=str(file))


def test_flips_mirror_left_to_right_in_training_only(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (200, 4, 6, 3), np.uint8)
    np.savez(tmp_path / "x.npz", x=x)
    dataset = data.load("arrays", path=str(tmp_path / "x.npz"), flip=True, held_out=0.25)
    plain = data.load("arrays", path=str(tmp_path / "x.npz"), held_out=0.25)
    rows = np.arange(150)
    flipped, original = (d.train.batch(rows, seed=1, epoch=2)["x1"] for d in (dataset, plain))
    mirrored = (flipped == original[:, :, ::-1]).all(axis=(1, 2, 3))
    np.testing.assert_array_equal(flipped[~mirrored], original[~mirrored])
    assert 50 < mirrored.sum() < 100
    some = np.array([7, 149, 7])
    np.testing.assert_array_equal(dataset.train.batch(some, 1, np.array([2, 2, 2]))["x1"], flipped[some])
    np.testing.assert_array_equal(all_of(dataset.test)[0], all_of(plain.test)[0])


def test_labels_that_are_not_wanted_are_no_classes(tmp_path):
    for name in ("a/1.png", "b/2.png"):
        save(tmp_path / name, picture(0))
    with_labels, without = (data.load("folder", dir=str(tmp_path), labels=labels) for labels in (True, False))
    assert (with_labels.num_classes, without.num_classes) == (2, 0)
    np.testing.assert_array_equal(all_of(without.train)[0], all_of(with_labels.train)[0])


def test_arrays_are_padded_with_black(tmp_path):
    pixels = np.random.default_rng(0).integers(1, 256, (3, 4, 4), np.uint8)
    np.savez(tmp_path / "grey.npz", train_x=pixels, train_y=np.arange(3), test_x=pixels)
    dataset = data.load("arrays", path=str(tmp_path / "grey.npz"), pad=2)
    assert dataset.shape == (8, 8, 1)
    for source in (dataset.train, dataset.test):
        x = all_of(source)[0]
        np.testing.assert_allclose(x[:, 2:6, 2:6, 0], unit(pixels), atol=1e-6)
        assert np.all(np.delete(x, [2, 3, 4, 5], axis=1) == -1) and np.all(x[:, :, [0, 1, 6, 7]] == -1)


def test_held_out_and_training_images_are_all_images_once(tmp_path):
    x = np.arange(40, dtype=np.uint8)[:, None, None, None]
    np.savez(tmp_path / "x.npz", images=x, labels=np.arange(40))
    dataset = data.load("arrays", path=str(tmp_path / "x.npz"), held_out=0.1)
    assert (len(dataset.train), len(dataset.test), dataset.num_classes) == (36, 4, 40)
    values, labels = map(np.concatenate, zip(all_of(dataset.train), all_of(dataset.test), strict=True))
    np.testing.assert_array_equal(np.sort(labels), np.arange(40))
    np.testing.assert_allclose((values.reshape(-1) + 1) * 127.5, labels, atol=1e-5)
    with pytest.raises(UsageError, match=r"held_out is 1\.0, of 40 images"):
        data.load("arrays", path=str(tmp_path / "x.npz"), held_out=1.0)


def test_arrays_with_test_images(tmp_path):
    rng = np.random.default_rng(0)
    train, test = rng.integers(0, 256, (30, 5, 5), np.uint8), rng.integers(0, 256, (10, 5, 5), np.uint8)
    labels = {"train_y": np.arange(30, dtype=np.uint8) % 3, "test_y": np.arange(10) % 3}
    np.savez(tmp_path / "x.npz", train_x=train, test_x=test, **labels)
    dataset = data.load("arrays", path=str(tmp_path / "x.npz"))
    assert (dataset.shape, dataset.num_classes, dataset.kind) == ((5, 5, 1), 3, "image")
    np.testing.assert_allclose(all_of(dataset.train)[0][..., 0], unit(train), atol=1e-7)
    np.testing.assert_allclose(all_of(dataset.test)[0][..., 0], unit(test), atol=1e-7)
    np.testing.assert_array_equal(all_of(dataset.test)[1], np.arange(10) % 3)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros((3, 2, 2, 3))}, r"are float64 \[3, 2, 2, 3\], not uint8 \[N, H, W, C\]"),
        ({"x": np.zeros((3, 4), np.uint8)}, r"are uint8 \[3, 4\], not uint8 \[N, H, W, C\]"),
        ({"picture": np.zeros((3, 2, 2, 3), np.uint8)}, "holds picture: name its images one of images, x, arr_0"),
        ({"x": np.zeros((3, 2, 2, 3), np.uint8), "y": np.arange(4)}, r"labels .* are int64 \[4\], not whole numbers"),
        ({"x": np.zeros((3, 2, 2, 3), np.uint8), "y": np.arange(3) - 1}, "not whole numbers from 0 on"),
    ],
)
def test_arrays_that_are_not_images_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        data.load("arrays", path=str(tmp_path / "x.npz"))


def test_a_missing_or_broken_array_file(tmp_path):
    with pytest.raises(MissingError, match="there is no file"):
        data.load("arrays", path=str(tmp_path / "x.npz"))
    (tmp_path / "x.npz").write_bytes(b"PK broken")
    with pytest.raises(UsageError, match=r"is not a readable \.npz file"):
        data.load("arrays", path=str(tmp_path / "x.npz"))
    with pytest.raises(UsageError, match=r"data\.path is empty"):
        data.load("arrays")


def test_more_images_than_memory_are_refused():
    from flowmaps.data import _memory

    with pytest.raises(UsageError, match="make a TFDS data set of them"):
        _memory.empty((10**9, 256, 256, 3), "/big")


def test_bytes_are_127_5_x_plus_128_cut_and_truncated():
    x = np.array([-2, -1, -0.999, -0.5, 0, 0.004, 1 - 1e-6, 1, 2, np.nan, np.inf], np.float32)
    np.testing.assert_array_equal(data.to_uint8(x), [0, 0, 0, 64, 128, 128, 255, 255, 255, 0, 255])
    levels = np.arange(256, dtype=np.float32)
    np.testing.assert_array_equal(data.to_uint8(levels / np.float32(127.5) - 1), levels)
