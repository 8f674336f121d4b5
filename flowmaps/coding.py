"""Images to latents and back by a trained autoencoder, in batches that are cut over all devices."""

from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh
from jaxtyping import Float

from flowmaps import autoencoders, sharding
from flowmaps.autoencoders import Pretrained
from flowmaps.data import Coding
from flowmaps.errors import UsageError
from flowmaps.types import Array, Params

Encode = Callable[[Float[np.ndarray, "b _ _ _"]], tuple[Array, Array]]
"""Images [b, H, W, C] in [-1, 1] -> mean and std [b, copies, h, w, z], of the image and perhaps of its mirror image."""
Decode = Callable[[Float[np.ndarray, "n _ _ _"]], Iterator[Float[np.ndarray, "b _ _ _"]]]
"""Latents [n, h, w, z], times their scale -> their images [b, H, W, C], batch by batch."""
BATCH = 8
"""Images that a device decodes at a time: one of 256 x 256 takes several hundred MB on the way."""


def encoder(pretrained: Pretrained, mesh: Mesh, *, mirrored: bool, dtype: str) -> Encode:
    """The compiled encoder of batches that are multiples of the devices, with the mirror images where they are
    `mirrored`; what it gives is of `dtype`."""
    params = jax.device_put(pretrained.params, sharding.replicated(mesh))

    @partial(jax.jit, in_shardings=(sharding.replicated(mesh), sharding.rows(mesh)))
    def encode(params: Params, x: Array) -> tuple[Array, Array]:
        copies = [x, x[:, :, ::-1]] if mirrored else [x]
        moments = [pretrained.module.apply({"params": params}, copy, method="encode") for copy in copies]
        mean, std = (jnp.stack(parts, axis=1).astype(dtype) for parts in zip(*moments, strict=True))
        return mean, std

    return partial(encode, params)


def of_dataset(coded: Coding, mesh: Mesh) -> Decode:
    """The decoder that a data set of latents names. Raises as `read`."""
    return decoder(read(coded), mesh, coded.scale)


def read(coded: Coding) -> Pretrained:
    """The autoencoder that a data set of latents names.

    Raises as `autoencoders.read`, and UsageError where its encoder is known to be another than that of the latents,
    which its decoder would make into no images.
    """
    found = autoencoders.read(coded.autoencoder)
    if coded.encoder and autoencoders.encoder_digest(found) != coded.encoder:
        raise UsageError(
            f"data.autoencoder={coded.autoencoder!r} has another encoder than the one that made these latents, which "
            "it cannot decode: give the file that scripts/encode_latents.py was given, in the same precision, or one "
            "that differs from it in the decoder alone"
        )
    return found


def decoder(pretrained: Pretrained, mesh: Mesh, scale: float) -> Decode:
    """The compiled decoder of latents that were multiplied by `scale`; every host has all of the images."""
    params, size = jax.device_put(pretrained.params, sharding.replicated(mesh)), BATCH * mesh.size

    @partial(jax.jit, out_shardings=sharding.replicated(mesh))
    def decode(params: Params, z: Array) -> Array:
        z = lax.with_sharding_constraint(z, sharding.rows(mesh))
        return pretrained.module.apply({"params": params}, z / scale, method="decode")

    def batches(z: np.ndarray) -> Iterator[np.ndarray]:
        for start in range(0, len(z), size):
            part = z[start : start + size]
            filled = np.concatenate([part, np.zeros((size - len(part), *z.shape[1:]), z.dtype)])
            yield np.asarray(decode(params, filled))[: len(part)]

    return batches
