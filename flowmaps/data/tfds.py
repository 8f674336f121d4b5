"""A TFDS data set by name, read by random access and without TensorFlow from array_record files.

scripts/prepare_images.py makes such files from a folder or an archive of images.
"""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, UInt8

from flowmaps.data import _images
from flowmaps.data._dataset import Dataset, fingerprint
from flowmaps.errors import MissingError, UsageError
from flowmaps.types import NULL_LABEL

HOW_TO_GET = {
    "celeb_a": "fetch img_align_celeba.zip (1,443,490,838 bytes, sha256 46fb89443c578308acf364d7d379fe1b"
    "9efb793042c0af734b6112e4fd3a8c74) and list_eval_partition.txt with a browser from "
    "https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, put both into {dir}/downloads, and run "
    "`python scripts/prepare_images.py --name=celeb_a --images={dir}/downloads/img_align_celeba.zip "
    "--partition={dir}/downloads/list_eval_partition.txt --out={dir}`, then this command again",
}
"""Of data sets that no script can download: the files, where they go, and the command that goes on."""
OTHERWISE = (
    "make it from images with `python scripts/prepare_images.py --name={name} --images=FOLDER_OR_ZIP --out={dir}`, "
    "or where TensorFlow is installed with `tfds build {name} --file_format=array_record --data_dir={dir}`"
)


def make(
    *,
    dataset: str = "",
    dir: str = "",
    split: str = "train",
    test_split: str = "",
    crop: int = 0,
    size: int = 0,
    flip: bool = False,
    labels: bool = True,
) -> Dataset:
    """The feature "image" of a data set, and its "label" where it has one.

    dataset: NAME, NAME:VERSION or NAME/CONFIG. dir: where TFDS keeps its data sets; "": $TFDS_DATA_DIR, or
    ~/tensorflow_datasets. split: any of TFDS, such as "train[:90%]"; test_split: likewise for the test source;
    "": none. crop: the side of the centred square cut out first; -1: the largest; 0: none. size: the side to
    resize to (antialiased); 0: as the images are. flip: mirror training images left to right, half of the time.
    labels: whether those that are there are used.
    Raises MissingError where the data set is not there, UsageError where it holds no such images.
    """
    import tensorflow_datasets as tfds

    if not dataset:
        raise UsageError("data.dataset is empty: set it to the name of a TFDS data set, such as celeb_a")
    folder = find(dataset, Path(dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser())
    builder = tfds.builder_from_directory(folder)
    features = builder.info.features
    if "image" not in features:
        raise UsageError(f"{dataset} has no feature 'image': it has {', '.join(features)}")

    def records(split: str, flip: bool) -> Records:
        examples = _open(builder, split, decoders={"image": tfds.decode.SkipDecoding()})
        channels = 1 if features["image"].shape[-1] == 1 else 3
        return Records(examples, f"{dataset} {split}", channels, crop, size, flip)

    train = records(split, flip)
    first = train.pixels(0)
    return Dataset(
        train=train,
        test=records(test_split, False) if test_split else None,
        shape=first.shape,
        num_classes=features["label"].num_classes if labels and "label" in features else 0,
        kind="image",
        fingerprint=fingerprint((folder / "dataset_info.json").read_text(), split, test_split, first),
    )


@dataclass(frozen=True)
class Records:
    """A source of images that are read from disk when they are asked for."""

    examples: Any
    """By random access: {"image": the bytes of a file, "label": a number, where there are classes}."""
    name: str
    channels: int
    crop: int
    size: int
    flip: bool

    def __len__(self) -> int:
        return len(self.examples)

    def batch(
        self, indices: Int[np.ndarray, " n"], seed: int = 0, epoch: int | Int[np.ndarray, " n"] = 0
    ) -> dict[str, np.ndarray]:
        numbers = indices.tolist()
        rows = self.examples.__getitems__(numbers)
        pixels = self._stack([self._decode(row, i) for row, i in zip(rows, numbers, strict=True)])
        if self.flip:
            pixels = _images.mirrored(pixels, _images.flips(indices, seed, epoch))
        labels = np.array([row.get("label", NULL_LABEL) for row in rows], np.int32)
        return {"x1": _images.unit(pixels), "label": labels}

    def pixels(self, index: int) -> UInt8[np.ndarray, "h w c"]:
        """One image, cropped and resized."""
        return self._decode(self.examples[index], index)

    def _decode(self, row: Mapping[str, Any], index: int) -> UInt8[np.ndarray, "h w c"]:
        name = f"image {index} of {self.name}"
        image = _images.read(row["image"], name, channels=self.channels, crop=self.crop, size=self.size)
        return _images.pixels(image)

    def _stack(self, images: Sequence[np.ndarray]) -> UInt8[np.ndarray, "n h w c"]:
        shapes = sorted({image.shape for image in images})
        if len(shapes) > 1:
            raise UsageError(f"the images of {self.name} are {shapes[0]} and {shapes[1]}: set data.crop and data.size")
        return np.stack(images)


def find(dataset: str, root: Path) -> Path:
    """The folder of the newest finished version below `root`. Raises MissingError where there is none."""
    name, _, version = dataset.partition(":")
    versions = [
        info.parent
        for info in (root / name).glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", info.parent.name) and version in ("", info.parent.name)
    ]
    if not versions:
        advice = HOW_TO_GET.get(name, OTHERWISE).format(name=name, dir=root)
        raise MissingError(f"the data set {dataset} is not in {root}: {advice}")
    return max(versions, key=lambda folder: tuple(map(int, folder.name.split("."))))


def _open(builder: Any, split: str, decoders: Mapping[str, Any]) -> Any:
    try:
        return builder.as_data_source(split, decoders=decoders)
    except NotImplementedError as error:
        file_format = builder.info.file_format.value
        raise UsageError(
            f"{builder.data_dir} holds {file_format} files: prepare it again with --file_format=array_record"
        ) from error
    except ValueError as error:
        known = ", ".join(builder.info.splits)
        raise UsageError(f"{builder.name} has no split {split!r}: there are {known}") from error
