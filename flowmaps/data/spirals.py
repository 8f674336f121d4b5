"""Interleaved spirals: equal arms of Archimedes' spiral from the centre, blurred by a Gaussian."""

import numpy as np
from jaxtyping import Float64

from flowmaps.data import _random
from flowmaps.data._dataset import Dataset
from flowmaps.data._plane import plane


def make(*, arms: int = 2, turns: float = 1.5, radius: float = 1.0, noise: float = 0.02) -> Dataset:
    """`arms` spirals of `turns` turns that end at `radius`; standard deviation `noise` of the blur.

    The distance from the centre is radius times the root of a uniform number, which spreads the points almost
    evenly along an arm.
    """

    def law(u: Float64[np.ndarray, "n 4"]) -> Float64[np.ndarray, "n 2"]:
        arm, along = np.floor(arms * u[:, :1]), np.sqrt(u[:, 1:2])
        angle = 2 * np.pi * (turns * along + arm / arms)
        direction = np.concatenate([np.cos(angle), np.sin(angle)], axis=1)
        return radius * along * direction + noise * _random.gaussian(u[:, 2:])

    parameters = {"arms": arms, "turns": turns, "radius": radius, "noise": noise}
    return plane("spirals", parameters, law, uniforms=4)
