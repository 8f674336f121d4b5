"""A swiss roll seen from its side: an arc of Archimedes' spiral, blurred by a Gaussian."""

import numpy as np
from jaxtyping import Float64

from flowmaps.data import _random
from flowmaps.data._dataset import Dataset
from flowmaps.data._plane import plane


def make(*, start: float = 0.75, turns: float = 1.5, radius: float = 1.0, noise: float = 0.02) -> Dataset:
    """The arc from `start` turns on, `turns` long, uniform in the angle.

    The distance from the centre grows with the angle and ends at `radius`; `noise` is the blur's standard
    deviation.
    """

    def law(u: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 2"]:
        turn = start + turns * u[:, :1]
        direction = np.concatenate([np.cos(2 * np.pi * turn), np.sin(2 * np.pi * turn)], axis=1)
        return radius * turn / (start + turns) * direction + noise * _random.gaussian(u[:, 1:])

    parameters = {"start": start, "turns": turns, "radius": radius, "noise": noise}
    return plane("swiss_roll", parameters, law, uniforms=3)
