"""Images as tokens: a grid of patches, row after row, and where each of them lies."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from flowmaps.errors import UsageError
from flowmaps.types import Array

Images = Float[Array, "b h w c"]
Tokens = Float[Array, "b n d"]


def grid(x: Images, patch: int) -> tuple[int, int]:
    """Rows and columns of patches. Raises UsageError where they do not fill the image."""
    _, height, width, _ = x.shape
    if height % patch or width % patch:
        raise UsageError(f"{height}x{width} cannot be cut into patches of {patch}: set network.patch")
    return height // patch, width // patch


def to_tokens(x: Images, patch: int) -> Tokens:
    """[B, H, W, C] -> [B, H W / patch^2, patch^2 C]. Raises as `grid`."""
    rows, columns = grid(x, patch)
    cut = x.reshape(x.shape[0], rows, patch, columns, patch, -1).swapaxes(2, 3)
    return cut.reshape(x.shape[0], rows * columns, -1)


def to_images(tokens: Tokens, like: Images, patch: int) -> tuple[Images, ...]:
    """Tokens [B, n, K patch^2 C] -> K images in the shape of `like`; for K = 1 the inverse of `to_tokens`."""
    (rows, columns), (batch, *_, channels) = grid(like, patch), like.shape
    cut = jnp.moveaxis(tokens.reshape(batch, rows, columns, -1, patch, patch, channels), 3, 0)
    return tuple(image.swapaxes(2, 3).reshape(like.shape) for image in cut)


def wave_angles(rows: int, columns: int, waves: int) -> tuple[np.ndarray, np.ndarray]:
    """Each patch's row, and its column, times `waves` frequencies from 1 down to almost 1e-4: twice [n, waves]."""
    frequencies = 10_000.0 ** -(np.arange(waves) / waves)
    along_rows, along_columns = (g.reshape(-1, 1) * frequencies for g in np.mgrid[:rows, :columns])
    return along_rows, along_columns


def position_embedding(rows: int, columns: int, channels: int) -> np.ndarray:
    """Fixed sin-cos embedding of each patch's place: [n, channels], channels divisible by 4."""
    parts = [wave(angles) for angles in wave_angles(rows, columns, channels // 4) for wave in (np.sin, np.cos)]
    return np.concatenate(parts, axis=-1)


def axial_angles(rows: int, columns: int, channels: int) -> np.ndarray:
    """By what rotary embeddings turn the pairs of a head's channels: one half of them by the row, the other by the
    column of each patch (arXiv:2104.09864, on two axes). [n, channels / 2].

    Raises UsageError for channels that 4 does not divide.
    """
    if channels % 4:
        raise UsageError(f"rotary positions need heads of a multiple of 4 channels, not {channels}: set network.heads")
    return np.concatenate(wave_angles(rows, columns, channels // 4), axis=-1)
