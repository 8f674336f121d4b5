"""Gaussians on a ring: `modes` equal ones at equal angles, the first at angle 0."""

import numpy as np
from jaxtyping import Float, Float64, Int

from flowmaps.data import _random
from flowmaps.data._dataset import Dataset, Modes
from flowmaps.data._plane import plane

REACH = 4.0
"""Standard deviations from its centre to the edge of a mode: exp(-8), one point in 3,000, lies outside, and between
neighbours of the default ring there is twice as much room."""


def make(*, modes: int = 8, radius: float = 0.8, std: float = 0.04) -> Dataset:
    """`radius` of the ring and standard deviation `std` of each mode's coordinates; std >= 0."""
    angles = 2 * np.pi * np.arange(modes) / modes
    centres = radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)

    def law(u: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 2"]:
        return centres[(modes * u[:, 0]).astype(int)] + std * _random.gaussian(u[:, 1:])

    def log_density(x: Float[np.ndarray, "n 2"]) -> Float64[np.ndarray, " n"]:
        squares = ((np.asarray(x, np.float64)[:, None] - centres) ** 2).sum(axis=-1)
        return np.logaddexp.reduce(-squares / (2 * std**2), axis=1) - np.log(2 * np.pi * std**2 * modes)

    def mode(x: Float[np.ndarray, "n 2"]) -> Int[np.ndarray, " n"]:
        distance = np.sqrt(((np.asarray(x, np.float64)[:, None] - centres) ** 2).sum(axis=-1))
        return np.where(distance.min(axis=1) <= REACH * std, distance.argmin(axis=1), -1)

    parameters = {"modes": modes, "radius": radius, "std": std}
    parts = Modes(modes, mode)
    return plane("rings", parameters, law, uniforms=3, log_density=log_density, modes=parts)
