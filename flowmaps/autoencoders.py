"""An autoencoder's weights, from a .safetensors file as Diffusers' `AutoencoderKL` saves it: that of Stable Diffusion's
sd-vae-ft-mse or -ema, or one of other sizes, which its arrays tell."""

import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from flowmaps.errors import MissingError, UsageError
from flowmaps.metrics.digest import sha256_of_arrays
from flowmaps.networks.autoencoder import Autoencoder
from flowmaps.types import Params

Shape = tuple[int, ...]
OLDER = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
"""What Diffusers called an attention's projections before its version 0.15."""
PARTS = {"kernel": "weight", "scale": "weight", "bias": "bias"}
ENCODER = ("encoder/", "quant_conv/")
"""What images pass through on their way to latents."""


class Pretrained(NamedTuple):
    """An autoencoder and its weights."""

    module: Autoencoder
    params: Params


def read(path: str | Path) -> Pretrained:
    """The autoencoder of a file, its weights in float32 on the host.

    Raises MissingError where there is no such file, UsageError that names an array which is missing, of another shape
    or of no layer.
    """
    with _opened(path) as file:
        module, names = _described(file, path)
        flat = {ours: _ours(file.get_tensor(theirs)) for ours, theirs in names.items()}
    return Pretrained(module, traverse_util.unflatten_dict(flat, sep="/"))


def describe(path: str | Path) -> Autoencoder:
    """The autoencoder of a file, of which all names and shapes are looked at and no weights read. Raises as `read`."""
    with _opened(path) as file:
        return _described(file, path)[0]


def encoder_digest(pretrained: Pretrained) -> str:
    """What tells encoders, and so their latents, apart: autoencoders whose decoders alone differ, as those of Stable
    Diffusion, sd-vae-ft-mse and -ema do, have the same."""
    flat = traverse_util.flatten_dict(pretrained.params, sep="/")
    return sha256_of_arrays({name: array for name, array in flat.items() if name.startswith(ENCODER)})


def _described(file: Any, path: str | Path) -> tuple[Autoencoder, dict[str, str]]:
    """The module, and for each of its parameters the array's name in the file."""
    shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (no mapping)
    module = _sized(shapes)
    if any(channels % module.groups for channels in module.channels):
        raise UsageError(f"{path} has {module.channels} channels, which are not multiples of {module.groups}")
    image = jnp.zeros((1, module.factor, module.factor, module.image_channels))
    wanted = traverse_util.flatten_dict(jax.eval_shape(module.init, jax.random.key(0), image)["params"], sep="/")
    names = {ours: _theirs(ours, shapes) for ours in wanted}
    expected = {names[ours]: _their_shape(array.shape) for ours, array in wanted.items()}
    for name in sorted(expected.keys() | shapes.keys()):
        if expected.get(name) != shapes.get(name):
            found, due = (list(there[name]) if name in there else "absent" for there in (shapes, expected))
            raise UsageError(
                f"{path} is not of an AutoencoderKL as Diffusers saves it: {name} is {found} and should be {due}"
            )
    return module, names


def _sized(shapes: Mapping[str, Shape]) -> Autoencoder:
    """The module whose sizes the arrays tell, and of what they do not tell Stable Diffusion's."""
    kernels = map("encoder.down_blocks.{}.resnets.0.conv2.weight".format, itertools.count())
    channels = tuple(shapes[name][0] for name in itertools.takewhile(shapes.__contains__, kernels))
    blocks = map("encoder.down_blocks.0.resnets.{}.conv2.weight".format, itertools.count())
    image, latent = shapes.get("encoder.conv_in.weight"), shapes.get("post_quant_conv.weight")
    return Autoencoder(
        channels=channels or Autoencoder.channels,
        depth=len(list(itertools.takewhile(shapes.__contains__, blocks))) or Autoencoder.depth,
        latent_channels=latent[0] if latent else Autoencoder.latent_channels,
        image_channels=image[1] if image else Autoencoder.image_channels,
    )


def _theirs(ours: str, names: Mapping[str, Shape]) -> str:
    """ "encoder/mid_block/attentions_0/to_q/kernel" -> "encoder.mid_block.attentions.0.to_q.weight", or with the older
    name where the file has that."""
    *modules, part = ours.split("/")
    newer = ".".join([*(re.sub(r"_(\d+)$", r".\1", module) for module in modules), PARTS[part]])
    older = newer
    for new, old in OLDER.items():
        older = older.replace(f".{new}.", f".{old}.")
    return older if older in names else newer


def _their_shape(ours: Shape) -> Shape:
    """HWIO -> OIHW, and of a matrix the transpose."""
    return (*ours[:-3:-1], *ours[:-2])


def _ours(theirs: np.ndarray) -> np.ndarray:
    """OIHW -> HWIO, and of a matrix the transpose; a vector stays."""
    return np.ascontiguousarray(np.moveaxis(theirs, (1, 0), (-2, -1)) if theirs.ndim > 1 else theirs, np.float32)


@contextmanager
def _opened(path: str | Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    file = Path(path).expanduser()
    if not file.is_file():
        raise MissingError(
            f"there is no autoencoder {file}: fetch diffusion_pytorch_model.safetensors of a Stable Diffusion VAE, "
            "such as https://huggingface.co/stabilityai/sd-vae-ft-mse, and give its path"
        )
    try:
        with safe_open(file, framework="numpy") as arrays:
            yield arrays
    except SafetensorError as error:
        raise UsageError(f"{file} is not a readable .safetensors file: {error}") from error
