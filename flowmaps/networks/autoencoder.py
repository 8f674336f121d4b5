"""Stable Diffusion's autoencoder (Rombach et al. 2022, arXiv:2112.10752): images become Gaussians over latents of an
eighth of their sides, and latents images.

Its parts bear the names that they have in Diffusers' `AutoencoderKL`, whose weights flowmaps/autoencoders.py reads. It
is no velocity, and so no network that a config finds by name.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from flowmaps.types import Array

Images = Float[Array, "b _ _ _"]
"""[B, H, W, C] of any sides and channels."""
Latents = Float[Array, "b _ _ z"]
LOG_VARIANCES = (-30.0, 20.0)
"""Between which a latent's log-variance is clipped."""


def conv(channels: int, name: str) -> nn.Conv:
    """3 x 3, the sides kept."""
    return nn.Conv(channels, (3, 3), padding=1, name=name)


def normed(x: Images, groups: int, name: str) -> Images:
    """Group norm, whose variance is taken about the mean in a second pass."""
    return nn.GroupNorm(groups, epsilon=1e-6, use_fast_variance=False, name=name)(x)


class Residual(nn.Module):
    """Two convolutions beside a skip."""

    channels: int
    groups: int

    @nn.compact
    def __call__(self, x: Images) -> Images:
        h = conv(self.channels, "conv1")(nn.silu(normed(x, self.groups, "norm1")))
        h = conv(self.channels, "conv2")(nn.silu(normed(h, self.groups, "norm2")))
        if x.shape[-1] != self.channels:
            x = nn.Conv(self.channels, (1, 1), name="conv_shortcut")(x)
        return x + h


class Attention(nn.Module):
    """Of all pixels to all, by a single head, beside a skip."""

    groups: int

    @nn.compact
    def __call__(self, x: Images) -> Images:
        tokens = normed(x, self.groups, "group_norm").reshape(len(x), -1, 1, x.shape[-1])
        query, key, value = (nn.Dense(x.shape[-1], name=name)(tokens) for name in ("to_q", "to_k", "to_v"))
        mixed = jax.nn.dot_product_attention(query, key, value)
        return x + nn.Dense(x.shape[-1], name="to_out_0")(mixed).reshape(x.shape)


class Middle(nn.Module):
    """Attention between two blocks."""

    groups: int

    @nn.compact
    def __call__(self, x: Images) -> Images:
        x = Residual(x.shape[-1], self.groups, name="resnets_0")(x)
        x = Attention(self.groups, name="attentions_0")(x)
        return Residual(x.shape[-1], self.groups, name="resnets_1")(x)


class Halved(nn.Module):
    """A convolution of stride 2, zeros on the right and below alone."""

    PART = "downsamplers_0"

    @nn.compact
    def __call__(self, x: Images) -> Images:
        return nn.Conv(x.shape[-1], (3, 3), strides=2, padding=((0, 1), (0, 1)), name="conv")(x)


class Doubled(nn.Module):
    """Each pixel as a 2 x 2 square, then a convolution."""

    PART = "upsamplers_0"

    @nn.compact
    def __call__(self, x: Images) -> Images:
        return conv(x.shape[-1], "conv")(jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2))


class Level(nn.Module):
    """The blocks at one resolution, and the way to the next where there is one."""

    channels: int
    depth: int
    groups: int
    resize: type[Halved] | type[Doubled] | None

    @nn.compact
    def __call__(self, x: Images) -> Images:
        for i in range(self.depth):
            x = Residual(self.channels, self.groups, name=f"resnets_{i}")(x)
        return x if self.resize is None else self.resize(name=self.resize.PART)(x)


class Encoder(nn.Module):
    """Images -> features [B, h, w, outputs] of the coarsest resolution."""

    channels: tuple[int, ...]
    depth: int
    outputs: int
    groups: int

    @nn.compact
    def __call__(self, x: Images) -> Images:
        h = conv(self.channels[0], "conv_in")(x)
        last = len(self.channels) - 1
        for i, channels in enumerate(self.channels):
            resize = Halved if i < last else None
            h = Level(channels, self.depth, self.groups, resize, name=f"down_blocks_{i}")(h)
        h = Middle(self.groups, name="mid_block")(h)
        return conv(self.outputs, "conv_out")(nn.silu(normed(h, self.groups, "conv_norm_out")))


class Decoder(nn.Module):
    """Features of the coarsest resolution -> images [B, H, W, outputs]; at each resolution one block more."""

    channels: tuple[int, ...]
    depth: int
    outputs: int
    groups: int

    @nn.compact
    def __call__(self, x: Images) -> Images:
        h = conv(self.channels[-1], "conv_in")(x)
        h = Middle(self.groups, name="mid_block")(h)
        last = len(self.channels) - 1
        for i, channels in enumerate(reversed(self.channels)):
            resize = Doubled if i < last else None
            h = Level(channels, self.depth + 1, self.groups, resize, name=f"up_blocks_{i}")(h)
        return conv(self.outputs, "conv_out")(nn.silu(normed(h, self.groups, "conv_norm_out")))


class Autoencoder(nn.Module):
    """Images [B, H, W, C] in [-1, 1] and latents [B, H / f, W / f, Z], f = 2^(levels - 1).

    The defaults are Stable Diffusion's. Sides are multiples of f, channels of `groups`.
    """

    channels: tuple[int, ...] = (128, 256, 512, 512)
    """Of each resolution, from the finest on."""
    depth: int = 2
    """Blocks a resolution on the way down; one more on the way up."""
    latent_channels: int = 4
    image_channels: int = 3
    groups: int = 32
    """Of the group norms."""

    @property
    def factor(self) -> int:
        """f: pixels of an image's side for each of its latents'."""
        return 2 ** (len(self.channels) - 1)

    def setup(self) -> None:
        latent = self.latent_channels
        self.encoder = Encoder(self.channels, self.depth, 2 * latent, self.groups)
        self.quant_conv = nn.Conv(2 * latent, (1, 1))
        self.post_quant_conv = nn.Conv(latent, (1, 1))
        self.decoder = Decoder(self.channels, self.depth, self.image_channels, self.groups)

    def __call__(self, x: Images) -> Images:
        """What the mean of an image's latents decodes to."""
        return self.decode(self.encode(x)[0])

    def encode(self, x: Images) -> tuple[Latents, Latents]:
        """Mean and standard deviation of the Gaussian over an image's latents, in the autoencoder's own scale."""
        mean, log_variance = jnp.split(self.quant_conv(self.encoder(x)), 2, axis=-1)
        return mean, jnp.exp(jnp.clip(log_variance, *LOG_VARIANCES) / 2)

    def decode(self, z: Latents) -> Images:
        """The image of latents; it may leave [-1, 1] a little."""
        return self.decoder(self.post_quant_conv(z))
