"""Turns a folder or a zip archive of PNG or JPG images into a TFDS data set of array_record files.

    python scripts/prepare_images.py --name=celeb_a --images=img_align_celeba.zip \
        --partition=list_eval_partition.txt --out=~/tensorflow_datasets

TensorFlow is needed neither here nor to read the result: --config.data.name=tfds --config.data.dataset=celeb_a.
Sub-folders, where there are two or more, are the classes. Without --crop and --size the files are stored as they
are, otherwise as PNG. Every image is read: a broken one, or one of another size, stops the work and is named. The
data set is written aside and renamed when it is whole; after an interruption the same command begins again.
"""

import argparse
import io
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package need not be installed

from flowmaps.data import _files
from flowmaps.errors import MissingError, UsageError

VERSION = "1.0.0"
SPLITS = {"0": "train", "1": "validation", "2": "test"}
"""What the numbers in CelebA's list_eval_partition.txt mean; other words are names of splits themselves."""
WINDOW = 256
"""Images that are read side by side."""

Example = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="name of the data set, such as celeb_a")
    parser.add_argument("--images", required=True, help="a folder or a .zip archive of PNG or JPG images")
    parser.add_argument("--out", default="~/tensorflow_datasets", help="the folder that holds TFDS data sets")
    parser.add_argument("--partition", default="", help="text file of lines FILE SPLIT; without it all is train")
    parser.add_argument("--crop", type=int, default=0, help="side of the centred square to cut out; -1: the largest")
    parser.add_argument("--size", type=int, default=0, help="side to resize to, antialiased")
    try:
        print(prepare(**vars(parser.parse_args(arguments))))
    except (UsageError, MissingError) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def prepare(name: str, images: str, out: str, partition: str = "", crop: int = 0, size: int = 0) -> Path:
    """Writes the data set below `out` and gives its folder.

    Raises MissingError where there are no images or no partition; UsageError that names the file where one is
    broken, of another size than the first, or in no split, and where the data set is there already.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise UsageError(f"{name!r} cannot name a TFDS data set: use small letters, digits and underscores")
    target = Path(out).expanduser().resolve() / name / VERSION
    if target.exists():
        raise UsageError(f"{target} is there already: use it, remove it, or choose another --name or --out")
    files = _files.find(images)
    splits = partitioned(list(files.paths), partition)
    channels = max(map(_files.channels, files.paths.values()))
    labels = dict(zip(files.paths, files.labels.tolist(), strict=True))
    first = next(iter(files.paths.values()))
    width, height = _files.read(first, channels=channels, crop=crop, size=size).size

    def example(file: str) -> Example:
        path = files.paths[file]
        image = _files.read(path, channels=channels, crop=crop, size=size)
        if image.size != (width, height):
            raise UsageError(
                f"{path} is {image.width}x{image.height}, but {first} is {width}x{height}: "
                "mend it, or give --crop and --size"
            )
        stored = _png(image) if crop or size else _files.content(path)
        return {"image": stored, "file_name": file} | ({"label": labels[file]} if files.classes else {})

    write(target, (height, width, channels), files.classes, splits, example)
    return target


def partitioned(files: Sequence[str], partition: str) -> dict[str, list[str]]:
    """The files of each split, by lines "FILE SPLIT" of the text file `partition`; without one all are train.

    FILE is a name without its folders. Raises MissingError where there is no such text file, UsageError that
    names an image which no line names.
    """
    if not partition:
        return {"train": list(files)}
    table = Path(partition).expanduser()
    if not table.is_file():
        raise MissingError(f"there is no partition file {table}: put it there, or leave --partition out")
    split_of = dict(line.split()[:2] for line in table.read_text().splitlines() if len(line.split()) >= 2)
    splits: dict[str, list[str]] = {}
    for file in files:
        split = split_of.get(Path(file).name)
        if split is None:
            raise UsageError(f"{table} has no line for the image {file}")
        splits.setdefault(SPLITS.get(split, split), []).append(file)
    return splits


def write(
    target: Path,
    shape: tuple[int, int, int],
    classes: Sequence[str],
    splits: Mapping[str, Sequence[str]],
    example: Callable[[str], Example],
) -> None:
    """Writes the examples of the files of each split as a TFDS data set into OUT/NAME/VERSION.

    TFDS itself writes aside and renames at the end.
    """
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(shape=shape), "file_name": tfds.features.Text()}
    if classes:
        features["label"] = tfds.features.ClassLabel(names=list(classes))

    class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        """The data set as TFDS sees it."""

        name = target.parent.name
        VERSION = tfds.core.Version(target.name)

        def _info(self) -> tfds.core.DatasetInfo:
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, _) -> dict[str, Iterator]:
            return {split: _side_by_side(example, files) for split, files in splits.items()}

        def _generate_examples(self) -> None:
            """Not used: the splits bring their generators."""

    builder = Builder(data_dir=target.parents[1], file_format="array_record")
    builder.download_and_prepare(download_config=tfds.download.DownloadConfig(try_download_gcs=False))


def _side_by_side(example: Callable[[str], Example], files: Sequence[str]) -> Iterator[tuple[str, Example]]:
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), WINDOW):
            window = files[start : start + WINDOW]
            yield from zip(window, pool.map(example, window), strict=True)


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
