"""Metrics of planes, with the value of fresh exact samples as their floor."""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from flowmaps.metrics import Metric

Points = Float[np.ndarray, "n 2"]


def plane_metric(
    name: str,
    measure: Callable[[Points, Any, int], float],
    *,
    num_samples: int,
    needs: Literal["", "log_density"] = "",
) -> Metric:
    """The metric measure(samples, dataset, seed); its floor is the value of exact samples."""

    def compute(samples, dataset, labels, seed):
        return {name: measure(samples, dataset, seed)}

    def floor(dataset, seed, num_samples=num_samples):
        return compute(draw(dataset.train, num_samples, seed), dataset, None, seed)

    return Metric({name: "lower"}, num_samples, "plane", compute, floor, needs)


def against_samples(name: str, distance: Callable[[Points, Points], float], *, num_samples: int) -> Metric:
    """The metric distance(samples, as many exact ones); its floor holds exact samples against exact ones."""

    def measure(samples, dataset, seed):
        return distance(samples, draw(dataset.test, len(samples), seed))

    return plane_metric(name, measure, num_samples=num_samples)


def draw(source, num_samples: int, seed: int) -> Points:
    """The first examples of a law under this seed, float64."""
    return np.asarray(source.batch(np.arange(num_samples), seed)["x1"], np.float64)
