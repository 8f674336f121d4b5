"""Features of images by a classifier of one's own: the last hidden layer of the network `classifier`, whose weights
scripts/train_classifier.py has trained and written.

A distance of such features is no FID. It compares runs that were measured with one file, whose digest each number
carries.
"""

import zipfile
from collections.abc import Mapping
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jaxtyping import Float, UInt8

from flowmaps.errors import MissingError, UsageError
from flowmaps.metrics import inception
from flowmaps.metrics._inception import Features
from flowmaps.networks.classifier import HIDDEN, LAYERS, Classifier
from flowmaps.types import Array

HOW_TO_GET = (
    "train one with `python -m scripts.train_classifier --data=\"arrays(path='/my/images.npz')\" "
    "--output=classifier.npz` and set --config.eval.classifier=classifier.npz"
)
PROTOCOL = {
    "feature": "classifier",
    "resize": "none",
    "scaling": "x / 127.5 - 1",
    "uint8": inception.PROTOCOL["uint8"],
}
"""How numbers in [-1, 1] become features, beside the weights."""
DIMENSIONS = (HIDDEN, 0)
"""Of the features that Frechet distances are of: there are none of the inside."""

Weights = Mapping[str, np.ndarray]


def apply(variables: Mapping, images: UInt8[Array, "n h w c"]) -> Features:
    """The features of images 0 to 255, and the classes' unnormalised log probabilities."""
    x = images.astype(jnp.float32) / 127.5 - 1
    with jax.default_matmul_precision("highest"):
        *_, hidden = Classifier(x.shape[1:], 0).apply({"params": variables["layers"]}, x)
        logits = hidden @ variables["logits"]["kernel"] + variables["logits"]["bias"][None]
    return Features(hidden, jnp.zeros((len(x), 0), x.dtype), logits)


def read(path: str | Path | None) -> Weights:
    """The arrays of an .npz by layer and part ("conv1/kernel"), float32.

    Raises MissingError where no file is named or there is none, UsageError where it holds no such classifier.
    """
    if path is None or not Path(path).is_file():
        where = "no file is named" if path is None else f"there is no file {path}"
        raise MissingError(f"fd_classifier needs the weights of a classifier, and {where}: {HOW_TO_GET}")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: np.asarray(arrays[name], np.float32) for name in arrays if name != "data"}
    except (OSError, EOFError, ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not an .npz of a classifier's weights: {HOW_TO_GET}") from error
    wanted = {f"{layer}/{part}" for layer in (*LAYERS, "hidden", "logits") for part in ("kernel", "bias")}
    if wrong := sorted(wanted ^ found.keys()):
        raise UsageError(f"{path} is no classifier of this kind, {wrong[0]!r} is in one of them alone: {HOW_TO_GET}")
    return found


def check_images(weights: Weights, shape: tuple[int, ...], path: str | Path) -> None:
    """Raises UsageError where the classifier takes other images than those of `shape`."""
    module = Classifier(shape, 0)
    wanted = jax.eval_shape(module.init, jax.random.key(0), *module.inputs())["params"]
    for name, array in traverse_util.flatten_dict(wanted, sep="/").items():
        if weights[name].shape != array.shape:
            raise UsageError(
                f"{path} is a classifier of other images than {'x'.join(map(str, shape))}, {name} is "
                f"{weights[name].shape} and not {array.shape}: {HOW_TO_GET}"
            )


def variables(weights: Weights) -> dict[str, Mapping[str, Float[np.ndarray, "..."]]]:
    """The "layers" of the network, and the "logits" beside it."""
    layers = traverse_util.unflatten_dict(dict(weights), sep="/")
    return {"logits": layers.pop("logits"), "layers": layers}
