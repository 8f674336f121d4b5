"""The learned log-variance w(s, t) of a loss (EDM2, arXiv:2312.02696; with two times, arXiv:2505.18825, eq. 19)."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Float

from flowmaps.networks.embeddings import smooth_embedding
from flowmaps.types import Array

Row = Float[Array, " b"]


class LogVariance(nn.Module):
    """A linear function of the embeddings of s and t, zero at first."""

    shape: tuple[int, ...]
    num_classes: int
    width: int = 128

    @nn.compact
    def __call__(self, s: Row, t: Row) -> Row:
        features = jnp.concatenate([smooth_embedding(s, self.width), smooth_embedding(t, self.width)], axis=-1)
        zero = nn.initializers.zeros_init()
        return nn.Dense(1, use_bias=False, kernel_init=zero)(features)[:, 0]

    def inputs(self) -> tuple:
        """Two example rows."""
        return jnp.zeros(2), jnp.ones(2)


make = LogVariance
