"""Modes of the plane: how many of a law's parts do samples reach, and how many samples lie in one of them?"""

import numpy as np
from jaxtyping import Int

from flowmaps.metrics import Metric, Values
from flowmaps.metrics._plane import draw

HELD = 0.1
"""The part of its fair share of samples with which a mode counts as held. Of 10,000 exact samples a mode of eight has
1,250 with a standard deviation of 33: none is missed by chance, and one with less than a tenth is all but lost."""
NUM_SAMPLES = 10_000


def coverage(mode: Int[np.ndarray, " n"], count: int) -> Values:
    """Of samples by the mode in which each lies (-1: none), among `count` modes of equal mass:

    modes: how many hold at least a tenth of 1 / count of all samples. in_modes: share of samples in any mode.
    """
    held = np.bincount(mode[mode >= 0], minlength=count)
    return {"modes": float((held >= HELD * len(mode) / count).sum()), "in_modes": held.sum() / len(mode)}


def _compute(samples, dataset, labels, seed) -> Values:
    return coverage(dataset.modes.of(samples), dataset.modes.count)


def _floor(dataset, seed, num_samples=NUM_SAMPLES) -> Values:
    return _compute(draw(dataset.train, num_samples, seed), dataset, None, seed)


METRICS = {
    "modes": Metric({"modes": "higher", "in_modes": "higher"}, NUM_SAMPLES, "plane", _compute, _floor, needs="modes")
}
