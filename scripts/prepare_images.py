"""Turns a folder or a zip archive of PNG or JPG images into a TFDS data set of array_record files.

    python scripts/prepare_images.py --name=celeb_a --images=img_align_celeba.zip \
        --partition=list_eval_partition.txt --out=~/tensorflow_datasets

TensorFlow is needed neither here nor to read the result: --config.data.name=tfds --config.data.dataset=celeb_a.
Sub-folders, where there are two or more, are the classes. Without --crop and --size the files are stored as they
are, otherwise as PNG. Every image is read: a broken one, or one of another size, stops the work and is named.

The files of the data set are written aside, in VERSION.incomplete, each whole or not there, and the folder is renamed
when all are: after an interruption, a kill too, the same command goes on. All cores of a machine take part; several
machines that share the folder take parts of it by --shard=0/4, --shard=1/4, and so on, and whichever ends last ends it.
"""

import argparse
import io
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package need not be installed

from flowmaps import processes
from flowmaps.data import _files, _random
from flowmaps.data._dataset import fingerprint
from flowmaps.errors import MissingError, UsageError
from flowmaps.files import whole, write_whole

VERSION = "1.0.0"
SPLITS = {"0": "train", "1": "validation", "2": "test"}
"""What the numbers in CelebA's list_eval_partition.txt mean; other words are names of splits themselves."""
SHARDS, SMALLEST = 256, 512
"""Files of a split, at most, and images in each, at least."""
WINDOW = 256
"""Images that are read side by side."""

Example = dict[str, Any]


class Shard(NamedTuple):
    """A file of the data set, and the images in it."""

    file: str
    split: str
    images: list[str]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", required=True, help="name of the data set, such as celeb_a")
    parser.add_argument("--images", required=True, help="a folder or a .zip archive of PNG or JPG images")
    parser.add_argument("--out", default="~/tensorflow_datasets", help="the folder that holds TFDS data sets")
    parser.add_argument("--partition", default="", help="text file of lines FILE SPLIT; without it all is train")
    parser.add_argument("--crop", type=int, default=0, help="side of the centred square to cut out; -1: the largest")
    parser.add_argument("--size", type=int, default=0, help="side to resize to, antialiased")
    parser.add_argument("--shard", default="0/1", help="I/N: the files I, I + N, I + 2 N, ... alone; I from 0 on")
    try:
        print(prepare(**vars(parser.parse_args(arguments))))
    except (UsageError, MissingError) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except OSError as error:
        print(f"cannot go on: {error}; mend it and give the same command again", file=sys.stderr)
        sys.exit(UsageError.exit_code)


def prepare(
    name: str, images: str, out: str, partition: str = "", crop: int = 0, size: int = 0, shard: str = "0/1"
) -> str:
    """Writes the files of the data set below `out` that are this process's and are missing, and ends it where these
    were the last. Returns its folder, or what is left to others.

    Raises MissingError where there are no images or no partition; UsageError that names the file where one is
    broken, of another size than the first, in no split, or cannot be written, and where the data set is there already.
    """
    index, count = processes.share(shard)
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

    aside, features = begin(target, crop, size, splits), features_of((height, width, channels), files.classes)
    planned = shards(name, splits)
    for one in planned[index::count]:
        if not (aside / one.file).is_file():
            write(aside / one.file, map(features.serialize_example, side_by_side(example, one.images)))
    left = sum(not (aside / one.file).is_file() for one in planned)
    if target.exists():  # another process has found all of them there, and finished
        return str(target)
    if left:
        return f"{target}: {left} of {len(planned)} files are left to other processes"
    finish(aside, target, features, planned)
    return str(target)


def begin(target: Path, crop: int, size: int, splits: Mapping[str, Sequence[str]]) -> Path:
    """The folder of the unfinished data set. Raises UsageError where it is one of other images or options."""
    aside = target.with_name(f"{target.name}.incomplete")
    made = {"crop": crop, "size": size, "images": fingerprint({split: list(files) for split, files in splits.items()})}
    begun = aside / "preparation.json"
    if not begun.is_file():
        write_whole(begun, json.dumps(made, indent=2) + "\n")
    there = json.loads(begun.read_text())
    if there != made:
        raise UsageError(
            f"{aside} was begun with {there} and not {made}: remove it, or give the same images and options"
        )
    return aside


def shards(name: str, splits: Mapping[str, Sequence[str]]) -> list[Shard]:
    """The files of the data set. In a split the images are in a fixed random order, so that a part is a fair one."""
    made = []
    for split, images in splits.items():
        order = [images[i] for i in _random.permutation(len(images), 0)]
        each = max(-(-len(images) // SHARDS), SMALLEST)
        count = -(-len(images) // each)
        made += [
            Shard(f"{name}-{split}.array_record-{i:05d}-of-{count:05d}", split, order[i * each : (i + 1) * each])
            for i in range(count)
        ]
    return made


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


def features_of(shape: tuple[int, int, int], classes: Sequence[str]) -> Any:
    """What an example has, as TFDS sees it."""
    import tensorflow_datasets as tfds

    features = {"image": tfds.features.Image(shape=shape), "file_name": tfds.features.Text()}
    if classes:
        features["label"] = tfds.features.ClassLabel(names=list(classes))
    return tfds.features.FeaturesDict(features)


def write(file: Path, examples: Iterator[bytes]) -> None:
    """Writes a file of serialized examples. Raises UsageError where it cannot be written, such as on a full disk."""
    from array_record.python import array_record_module

    with whole(file) as aside:
        try:
            writer = array_record_module.ArrayRecordWriter(str(aside), "group_size:1")
            for example in examples:
                writer.write(example)
            writer.close()
        except RuntimeError as error:
            reason = str(error).partition(";")[0]
            raise UsageError(
                f"{file} cannot be written ({reason}): make room and give the same command again"
            ) from error


def finish(aside: Path, target: Path, features: Any, planned: Sequence[Shard]) -> None:
    """Makes the folder of whole files a TFDS data set, by its metadata and its name."""
    import tensorflow_datasets as tfds

    lengths: dict[str, list[int]] = {}
    size: dict[str, int] = {}
    for one in planned:
        lengths.setdefault(one.split, []).append(len(one.images))
        size[one.split] = size.get(one.split, 0) + (aside / one.file).stat().st_size
    splits = [tfds.core.SplitInfo(split, lengths[split], size[split]) for split in lengths]
    for cut_short in aside.glob(".*"):
        cut_short.unlink()
    tfds.folder_dataset.write_metadata(
        data_dir=str(aside), features=features, split_infos=splits, version=target.name, check_data=False
    )
    aside.rename(target)


def side_by_side(example: Callable[[str], Example], files: Sequence[str]) -> Iterator[Example]:
    """The examples of files, in their order, read by all cores."""
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(files), WINDOW):
            yield from pool.map(example, files[start : start + WINDOW])


def _png(image: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


if __name__ == "__main__":
    main()
