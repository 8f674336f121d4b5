"""A small autoencoder with Stable Diffusion's architecture, whose weights anyone can make again, and what Diffusers'
AutoencoderKL computes with them, kept in sd_autoencoder.npz.

    pip install torch diffusers && python tests/sd_autoencoder.py

writes that file anew (torch 2.13, Diffusers 0.42).
"""

import json
import math
import zlib
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).with_suffix(".npz")
CHANNELS = (32, 32, 64)
OLDER = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def golden():
    """Of "images" [2, 16, 24, 3] the "mean", "std" [2, 4, 6, 4]; "decoded" of the mean; "shapes" of the weights."""
    with np.load(GOLDEN, allow_pickle=False) as file:
        return {**file, "shapes": json.loads(str(file["shapes"])), "images": images()}


def weights(shapes):
    """Arrays by Diffusers' names, such that the layers' outputs are of the order of 1."""
    return {name: _array(name, tuple(shape)) for name, shape in shapes.items()}


def images():
    return np.random.RandomState(0).uniform(-1, 1, (2, 16, 24, 3)).astype(np.float32)


def save(path, arrays=None, *, older=False):
    """Writes the arrays, or those of the golden values, as a .safetensors file; `older`: with an attention's names as
    they were before Diffusers 0.15."""
    from safetensors.numpy import save_file

    arrays = weights(golden()["shapes"]) if arrays is None else arrays
    for new, old in OLDER.items() if older else ():
        arrays = {name.replace(f".{new}.", f".{old}."): array for name, array in arrays.items()}
    save_file(arrays, path)
    return str(path)


def diffusers_outputs(arrays, x, **sizes):
    """Diffusers' own mean, std and decoded mean for images [B, H, W, C]."""
    import torch

    model = diffusers_model(**sizes)
    model.load_state_dict({name: torch.tensor(array) for name, array in arrays.items()})
    with torch.no_grad():
        posterior = model.encode(torch.tensor(x).permute(0, 3, 1, 2)).latent_dist
        parts = posterior.mean, posterior.std, model.decode(posterior.mean).sample
    return tuple(part.permute(0, 2, 3, 1).numpy() for part in parts)


def diffusers_model(channels=CHANNELS):
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=2,
    ).eval()


def _array(name, shape):
    draws = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    if len(shape) > 1:
        return (draws / math.sqrt(math.prod(shape[1:]))).astype(np.float32)
    return (0.1 * draws + ("norm" in name and name.endswith("weight"))).astype(np.float32)


if __name__ == "__main__":
    shapes = {name: list(array.shape) for name, array in diffusers_model().state_dict().items()}
    mean, std, decoded = diffusers_outputs(weights(shapes), images())
    np.savez_compressed(GOLDEN, shapes=json.dumps(shapes), mean=mean, std=std, decoded=decoded)
