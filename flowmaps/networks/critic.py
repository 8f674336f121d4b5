"""Critics: a logit for each map that they see, a vector, tokens or an image, at a time t and with a label."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from flowmaps.networks.embeddings import class_index
from flowmaps.types import Array, Cond


class Head(nn.Module):
    """Vectors go through a perceptron; images through convolutions, each of which but the first sees half the sides;
    tokens through a perceptron each, whose mean counts. Then a linear form of what that gives, and where there are
    classes another one, their label's (the projection discriminator, arXiv:1802.05637)."""

    num_classes: int
    width: int
    depth: int

    @nn.compact
    def __call__(self, h: Float[Array, "b ..."], t: Float[Array, " b"], cond: Cond) -> Float[Array, " b"]:
        for layer in range(self.depth):
            if h.ndim == 4:
                # Pooled and not strided, whose second derivative a penalty asks for and CPUs have no fast program of.
                coarse = h if layer == 0 or min(h.shape[1:3]) < 2 else nn.avg_pool(h, (2, 2), (2, 2))
                h = nn.Conv(self.width, (3, 3))(coarse)
            else:
                h = nn.Dense(self.width)(h)
            if layer == 0:
                shift = nn.Dense(self.width)(t[:, None].astype(h.dtype))
                h = h + shift.reshape(len(t), *(1,) * (h.ndim - 2), self.width)
            h = nn.leaky_relu(h, 0.2)
        h = h.reshape(len(t), -1, self.width).mean(axis=1)
        logit = nn.Dense(1)(h)[:, 0]
        if self.num_classes:
            table = nn.Embed(self.num_classes + 1, self.width, embedding_init=nn.initializers.zeros_init())
            logit = logit + jnp.sum(h * table(class_index(cond, self.num_classes, len(t))), axis=-1)
        return logit


class Critic(nn.Module):
    """A head for each map."""

    shape: tuple[tuple[int, ...], ...]
    """Of each map."""
    num_classes: int
    width: int = 128
    depth: int = 3

    @nn.compact
    def __call__(
        self, maps: tuple[Float[Array, "b ..."], ...], t: Float[Array, " b"], cond: Cond
    ) -> Float[Array, "b k"]:
        heads = [Head(self.num_classes, self.width, self.depth, name=f"Head_{i}") for i in range(len(maps))]
        return jnp.stack([head(h, t, cond) for head, h in zip(heads, maps, strict=True)], axis=-1)

    def inputs(self) -> tuple:
        """Two example rows."""
        return tuple(jnp.zeros((2, *shape)) for shape in self.shape), jnp.zeros(2), {}


make = Critic
