"""Networks that a method reads and nobody trains, such as the features of a perceptual distance: their weights lie in a
file."""

import zipfile
from collections.abc import Mapping
from importlib import resources
from pathlib import Path

import jax
import numpy as np
from flax import traverse_util

from flowmaps import trained
from flowmaps.errors import MissingError, UsageError
from flowmaps.types import Method, Params

PACKAGED = {"digits": "digits_features.npz"}
"""Weights of the network `classifier` that come with flowmaps/metrics."""


def roles(method: Method) -> tuple[str, ...]:
    """The method's frozen roles that start from no other role."""
    return tuple(role for role, owner in method.owners.items() if owner == "frozen" and role not in method.init)


def load_weights(source: str | None, abstract: Params, field: str) -> Params:
    """The weights at `source`, which `field` of a config names: one of PACKAGED, or an .npz whose arrays are named by
    layer and part ("conv1/kernel"). What else it holds is left.

    abstract: the shapes, types and shardings of the parameters. Raises MissingError where there is no such file,
    UsageError where none is named, or an array is not there or of another shape.
    """
    given = "give an .npz with an array 'layer/part' for each parameter, or one of " + ", ".join(map(repr, PACKAGED))
    if trained.named(source) is None:
        raise UsageError(f"{field} is not set: {given}")
    path = resources.files("flowmaps.metrics") / PACKAGED[source] if source in PACKAGED else Path(source)
    if not path.is_file():
        raise MissingError(f"{field}={source!r} is not there: {given}")
    found, wanted = _arrays(path, f"{field}={source!r} is no .npz of arrays: {given}"), _flat(abstract)
    for name, array in wanted.items():
        if name not in found:
            raise UsageError(f"{field}={source!r} has no {name!r}, which the network has: {given}")
        if found[name].shape != array.shape:
            raise UsageError(
                f"{field}={source!r} is of another network: {name} {found[name].shape} -> {array.shape}, from the file "
                "to the network"
            )
    placed = {name: jax.device_put(found[name].astype(a.dtype), a.sharding) for name, a in wanted.items()}
    return traverse_util.unflatten_dict(placed, sep="/")


def _flat(params: Params) -> Mapping[str, jax.ShapeDtypeStruct]:
    return traverse_util.flatten_dict(params, sep="/")


def _arrays(path: Path, failure: str) -> Mapping[str, np.ndarray]:
    try:
        with path.open("rb") as file:
            return dict(np.load(file, allow_pickle=False))
    except (ValueError, TypeError, OSError, zipfile.BadZipFile) as error:
        raise UsageError(failure) from error
