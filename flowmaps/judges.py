"""What measures samples. Points and digits are measured as they are; images by their features, batch by batch."""

from collections.abc import Callable, Iterable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np

from flowmaps import generate, metrics, observer
from flowmaps.data import Dataset
from flowmaps.metrics import Labels, Values
from flowmaps.metrics.statistics import Reference
from flowmaps.observer import Look

Floor = Callable[[str, int, int], Mapping[str, float]]
"""(name of a metric, seed, number of samples) -> its values for exact or real samples."""


class Judge(NamedTuple):
    """Made once for a data set, and asked at every step count."""

    keep: Callable[[Iterable[np.ndarray]], Any]
    """What it needs of samples that come in batches."""
    values: Callable[[str, Any, Labels, int], Values]
    """(name of a metric, what was kept, labels, seed) -> its values."""
    floor: Floor
    """The same of exact or real samples; each is computed once."""
    against: str | None
    """What images are held against and how they become features, in words."""


def of_numbers(dataset: Dataset) -> Judge:
    """By the samples themselves."""

    def values(name: str, x: np.ndarray, labels: Labels, seed: int) -> Values:
        return metrics.load(name).compute(x, dataset, labels, seed)

    return Judge(generate.together, values, cache(partial(_floor, dataset)), None)


def of_images(dataset: Dataset, look: Look, reference: Reference, num_samples: int) -> Judge:
    """By the features of `num_samples` images, against those of a reference. The floor of a number of samples is the
    value of as many held-out images, nan where there are fewer."""

    def values(name: str, summary: Any, labels: Labels, seed: int) -> Values:
        return metrics.load(name).compute(summary, reference)

    @cache
    def held_out(count: int) -> Any:
        return observer.of_source(look, dataset.test, count)

    def floor(name: str, seed: int, count: int) -> Values:
        if not metrics.of_features([name]):
            return _floor(dataset, name, seed, count)
        if dataset.test is None or len(dataset.test) < count:
            return dict.fromkeys(metrics.load(name).values, float("nan"))
        return metrics.load(name).compute(held_out(count), reference)

    return Judge(partial(observer.of_samples, look, num_samples), values, cache(floor), reference.about)


def _floor(dataset: Dataset, name: str, seed: int, count: int) -> Values:
    return metrics.load(name).floor(dataset, seed, count)
