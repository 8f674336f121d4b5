"""Two interleaving half circles, blurred by a Gaussian; inside [-1, 1]^2 but for the blur."""

import numpy as np
from jaxtyping import Float64

from flowmaps.data import _random
from flowmaps.data._dataset import Dataset
from flowmaps.data._plane import plane

CENTRE = (0.5, 0.25)
"""Of the pair before it is scaled: the upper moon is (cos a, sin a), the lower one (1 - cos a, 1/2 - sin a)."""


def make(*, radius: float = 0.65, noise: float = 0.03) -> Dataset:
    """`radius` of the half circles, uniform in the angle a of [0, pi); standard deviation `noise` of the blur."""

    def law(u: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n 2"]:
        angle = np.pi * u[:, 1]
        upper = np.stack([np.cos(angle), np.sin(angle)], axis=1)
        moon = np.where(u[:, :1] < 0.5, upper, (1, 0.5) - upper)
        return radius * (moon - CENTRE) + noise * _random.gaussian(u[:, 2:])

    return plane("moons", {"radius": radius, "noise": noise}, law, uniforms=4)
