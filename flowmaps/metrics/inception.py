"""The weights of Inception-v3 of 2015-12-05: the file that they come from, the .npz that is read here, and its checks.

scripts/convert_inception.py makes the .npz, which holds the arrays under the names that PyTorch has for them, their
digest, and that of the file that they were read from.
"""

import io
import math
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from flowmaps.errors import MissingError, UsageError
from flowmaps.metrics._inception import CLASSES, POOL, SPATIAL, Features, Inception
from flowmaps.metrics.digest import sha256_of_arrays
from flowmaps.types import Array

SOURCE = "pt_inception-2015-12-05-6726825d.pth"
SOURCE_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{SOURCE}"
SOURCE_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
HOW_TO_GET = (
    f"fetch {SOURCE_URL} (95,628,359 bytes, sha256 {SOURCE_SHA256}), run `python scripts/convert_inception.py {SOURCE} "
    "inception.npz` where PyTorch is installed, and set --config.eval.inception=inception.npz or FLOWMAPS_INCEPTION"
)
DIGESTS = ("source_sha256", "arrays_sha256")
"""What the .npz holds beside the arrays."""

PROTOCOL = {
    "feature": "inception-2015-12-05",
    "resize": "TensorFlow 1 bilinear to 299x299",
    "scaling": "(x - 128) / 128",
    "uint8": "127.5 x + 128, truncated",
}
"""How numbers in [-1, 1] become features: two numbers that differ in any of it do not compare."""

PARTS = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
"""Flax's names of a layer's arrays and PyTorch's."""

DIMENSIONS = (POOL, math.prod(SPATIAL))
"""Of the features that Frechet distances are of: `pool` and `spatial`."""

Weights = Mapping[str, np.ndarray]


def apply(variables: Mapping, images: Array) -> Features:
    """The features of images 0 to 255 under the network's variables."""
    return Inception().apply(variables, images)


def read(path: str | Path | None) -> Weights:
    """The arrays of an .npz by PyTorch's names, float32.

    Raises MissingError where no file is named or there is none, UsageError where it holds other arrays than the network
    has, is damaged, or was made from another file than SOURCE.
    """
    if path is None or not Path(path).is_file():
        where = "no file is named" if path is None else f"there is no file {path}"
        raise MissingError(f"metrics of images need the weights of Inception-v3, and {where}: {HOW_TO_GET}")
    arrays = _arrays(Path(path))
    source, digest = (str(arrays.pop(name, "none")) for name in DIGESTS)
    check_shapes(arrays, path)
    if (found := sha256_of_arrays(arrays)) != digest:
        raise UsageError(f"{path} is damaged: its arrays have the sha256 {found}, and it says {digest}; {HOW_TO_GET}")
    if source != SOURCE_SHA256:
        raise UsageError(f"{path} was made from a file with the sha256 {source}, not {SOURCE}: {HOW_TO_GET}")
    return arrays


def packed(weights: Weights, source_sha256: str) -> bytes:
    """The .npz of arrays that were read from a file with this digest. Raises UsageError where they are others."""
    check_shapes(weights, "the file given")
    file = io.BytesIO()
    np.savez(file, **weights, source_sha256=source_sha256, arrays_sha256=sha256_of_arrays(weights))
    return file.getvalue()


def check_shapes(weights: Weights, path: str | Path) -> None:
    """Raises UsageError that names the first array that is missing, not the network's, or of another shape."""
    wanted = shapes()
    for name in sorted(wanted.keys() | weights.keys()):
        if name not in weights:
            raise UsageError(f"{path} is not Inception-v3 of 2015-12-05: it has no array {name!r}; {HOW_TO_GET}")
        if name not in wanted:
            raise UsageError(f"{path} is not Inception-v3 of 2015-12-05: it has an array {name!r}; {HOW_TO_GET}")
        if weights[name].shape != wanted[name]:
            raise UsageError(
                f"{path} is not Inception-v3 of 2015-12-05: {name} is {weights[name].shape}, not {wanted[name]}; "
                f"{HOW_TO_GET}"
            )


def shapes() -> dict[str, tuple[int, ...]]:
    """The 472 arrays of the file, of which the network reads all but the bias of its classes."""
    kernels_first = (
        (path, (*a.shape[:-3:-1], *a.shape[:-2]) if path[-1] == "kernel" else a.shape) for path, a in _leaves()
    )
    return {_name(path): shape for path, shape in kernels_first} | {"fc.bias": (CLASSES,)}


def variables(weights: Weights) -> dict:
    """The network's variables, whose kernels have their output channels last rather than first."""
    found = {}
    for path, abstract in _leaves():
        array = weights[_name(path)]
        kernel = np.moveaxis(array, (0, 1), (-1, -2)) if path[-1] == "kernel" else array
        found[path] = np.ascontiguousarray(kernel, abstract.dtype)
    return traverse_util.unflatten_dict(found)


@cache
def _leaves() -> tuple[tuple[tuple[str, ...], jax.ShapeDtypeStruct], ...]:
    images = jax.ShapeDtypeStruct((1, 8, 8, 3), jnp.uint8)
    return tuple(traverse_util.flatten_dict(jax.eval_shape(Inception().init, jax.random.key(0), images)).items())


def _name(path: tuple[str, ...]) -> str:
    return ".".join((*path[1:-1], PARTS[path[-1]]))


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, EOFError, ValueError, AttributeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not an .npz of Inception-v3's weights: {HOW_TO_GET}") from error
