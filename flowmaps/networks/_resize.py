"""Halving and doubling the sides of images, the steps of U-Nets."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from flowmaps.errors import UsageError
from flowmaps.types import Array

Images = Float[Array, "b _ _ _"]
"""[B, H, W, C] of any sides and channels."""


def check_sides(x: Images, resolutions: int) -> None:
    """Raises UsageError where a side cannot be halved as often as there are resolutions."""
    smallest = 2 ** (resolutions - 1)
    if x.shape[1] % smallest or x.shape[2] % smallest:
        raise UsageError(f"{x.shape[1]}x{x.shape[2]} cannot be halved {resolutions - 1} times: set network.multipliers")


def halved(x: Images) -> Images:
    """The mean of each 2x2 square."""
    return nn.avg_pool(x, (2, 2), (2, 2))


def doubled(x: Images) -> Images:
    """Each pixel as a 2x2 square."""
    return jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)


RESIZE = {"same": lambda x: x, "down": halved, "up": doubled}
