"""Folders and zip archives of images: which files there are, their classes, and reading them."""

import posixpath
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
from jaxtyping import Int
from PIL import Image

from flowmaps.data import _images
from flowmaps.errors import MissingError, UsageError
from flowmaps.types import NULL_LABEL

SUFFIXES = (".png", ".jpg", ".jpeg")


class Files(NamedTuple):
    """Image files, sorted by name, and their classes."""

    paths: Mapping[str, Path | zipfile.Path]
    """By name: the path below the folder or inside the archive, with forward slashes."""
    labels: Int[np.ndarray, " n"]
    """Of each file, an index into `classes`; NULL_LABEL where there are none."""
    classes: tuple[str, ...]
    """The sub-folders that hold the files; () where there are not at least two of them."""


def find(images: str) -> Files:
    """The images of a folder or a .zip archive.

    Raises MissingError where there is neither, UsageError where it is not an archive, holds no image, or has
    images both inside and outside of classes.
    """
    root = Path(images).expanduser()
    if root.is_dir():
        paths = {file.relative_to(root).as_posix(): file for file in root.rglob("*") if file.is_file()}
    elif root.is_file():
        archive = _archive(root)
        paths = {name: zipfile.Path(archive, name) for name in archive.namelist()}
    else:
        raise MissingError(f"there is no folder or .zip archive {root}: put PNG or JPG images there")
    paths = {name: paths[name] for name in sorted(filter(_is_image, paths))}
    if not paths:
        raise UsageError(f"{root} holds no images (files that end in {', '.join(SUFFIXES)})")
    return Files(paths, *_classes(list(paths), root))


def channels(path: Path | zipfile.Path) -> int:
    """1 (grey) or 3, from the file's header. Raises UsageError that names the file."""
    with path.open("rb") as file:
        return _images.channels(file, path)


def read(path: Path | zipfile.Path, *, channels: int, crop: int, size: int) -> Image.Image:
    """The image of a file, as `_images.read` gives it. Raises UsageError that names the file."""
    return _images.read(content(path), path, channels=channels, crop=crop, size=size)


def content(path: Path | zipfile.Path) -> bytes:
    """The bytes of a file. Raises UsageError that names it where they cannot be read."""
    try:
        return path.read_bytes()
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} cannot be read: {error}") from error


def _archive(file: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(file)
    except zipfile.BadZipFile as error:
        raise UsageError(
            f"{file} ({file.stat().st_size:,} bytes) is not a zip archive, perhaps a web page that was sent in its "
            "place: fetch it again with a browser"
        ) from error


def _classes(names: list[str], root: Path) -> tuple[np.ndarray, tuple[str, ...]]:
    folders = [PurePosixPath(name).parent for name in names]
    common = posixpath.commonpath(folders)
    tops = [(*folder.relative_to(common).parts, "")[0] for folder in folders]
    classes = tuple(sorted(set(tops)))
    if len(classes) == 1:
        return np.full(len(names), NULL_LABEL, np.int32), ()
    if "" in classes:
        stray = names[tops.index("")]
        raise UsageError(f"{root} has images in sub-folders, the classes, and outside of them ({stray}): sort it")
    number = {name: i for i, name in enumerate(classes)}
    return np.array([number[top] for top in tops], np.int32), classes


def _is_image(name: str) -> bool:
    hidden = any(part.startswith((".", "__MACOSX")) for part in name.split("/"))
    return name.lower().endswith(SUFFIXES) and not hidden
