"""Measures of samples against data, found by name: `load(name).compute(samples, dataset, labels, seed)`.

A file of this package that has a mapping `METRICS` (name -> Metric) adds what it lists. Everything is float64 numpy.
"""

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from flowmaps import lookup
from flowmaps.errors import UsageError

FEWEST = 16
"""Samples below which no metric means anything."""

NEEDS = {"log_density": "a density", "modes": "modes"}
"""What a field of a data set is, in words."""

Values = Mapping[str, float]
Labels = Int[np.ndarray, " n"] | None


class Metric(NamedTuple):
    """One computation that gives one value or several, each with its name."""

    values: Mapping[str, str]
    """Name of each value -> which is better: "lower", "higher", or "one" (the nearer to 1)."""
    num_samples: int
    """Samples for a value that compares with published and documented ones; more are cut, fewer are taken."""
    kind: str
    """The kind of data set that it measures."""
    compute: Callable[[Float[np.ndarray, "n *d"], Any, Labels, int], Values]
    """(samples, dataset, labels, seed) -> values. The seed draws the data that the samples are held against."""
    floor: Callable[..., Values]
    """(dataset, seed, num_samples=num_samples) -> the same values for exact or real samples."""
    needs: Literal["", "log_density", "modes"] = ""
    """The field that the data set must have."""
    references: Mapping[str, Callable[[Any, int], Values]] = {}
    """Name of a simple model -> (dataset, seed) -> the same values for its samples."""


class FeatureMetric(NamedTuple):
    """What is measured of the features of images. The names of its values end in the number of samples: fid_50k."""

    values: Mapping[str, str]
    """As of a Metric, without the number."""
    num_samples: int
    """As of a Metric."""
    compute: Callable[[Any, Any], Values]
    """(Summary of the samples, Reference) -> values; see summary.py and statistics.py."""
    reads: Literal["pool", "spatial", "kept"] = "pool"
    """The part of the reference that it reads."""
    network: Literal["inception", "classifier"] = "inception"
    """The module of this package whose network makes the features."""
    kind: Literal["image"] = "image"
    needs: Literal[""] = ""
    """Of the data set: nothing."""
    references: Mapping[str, Callable[[Any, int], Values]] = {}


class ModelMetric(NamedTuple):
    """What is measured of a velocity itself, once and not at each step count."""

    values: Mapping[str, str]
    """As of a Metric."""
    num_samples: int
    kinds: tuple[str, ...]
    """The kinds of data sets that it measures."""
    compute: Callable[..., tuple[Values, int]]
    """(velocity, interpolant, dataset, seed) -> values, and the evaluations of the velocity that they took a row."""
    floor: Callable[..., Values]
    """(dataset, seed, num_samples=num_samples) -> the same values for the exact velocity, nan where not known."""
    needs: Literal["any source", "gaussian source", "score"] = "any source"
    """What it takes of the source: its density, or that the velocity tells the score."""
    references: Mapping[str, Callable[[Any, int], Values]] = {}


AnyMetric = Metric | FeatureMetric | ModelMetric


def names() -> tuple[str, ...]:
    """All metrics."""
    return tuple(sorted(_found()))


def load(name: str) -> AnyMetric:
    """The metric, whose `compute` takes its first `num_samples` samples and gives nan where one is not finite.

    Raises UsageError with the nearest name where there is none; so does `compute` where the metric does not
    suit the data set (see `check`) or there are fewer than 16 samples.
    """
    found = _found()
    lookup.check_name("metric", name, found)
    metric = found[name]
    guards = {Metric: _guarded, FeatureMetric: _of_finite}
    return metric._replace(compute=guards[type(metric)](name, metric)) if type(metric) in guards else metric


def check(name: str, dataset) -> None:
    """Raises UsageError where the metric is unknown or cannot measure the data set."""
    found = _found()
    lookup.check_name("metric", name, found)
    metric = found[name]
    if isinstance(metric, ModelMetric):
        if dataset.kind not in metric.kinds:
            raise UsageError(
                f"metric {name!r} needs {' or '.join(metric.kinds)} data, and these are {dataset.kind} data"
            )
        return
    decoded = isinstance(metric, FeatureMetric) and dataset.coding is not None
    if not decoded and (metric.kind != dataset.kind or lacks(dataset, metric)):
        able = [n for n in of_samples(found) if found[n].kind == dataset.kind and not lacks(dataset, found[n])]
        need = f"{metric.kind} data" + (f" with {NEEDS[metric.needs]}" if metric.needs else "")
        raise UsageError(
            f"metric {name!r} needs {need}, and these are {dataset.kind} data"
            f"{' without' if metric.kind == dataset.kind else ''}: choose from {', '.join(sorted(able)) or 'none'}"
        )


def lacks(dataset, metric: Metric | FeatureMetric) -> bool:
    """Whether the data set is without the field that the metric needs."""
    return bool(metric.needs) and getattr(dataset, metric.needs) is None


def of_samples(names: Iterable[str]) -> list[str]:
    """Those of the metrics that measure samples."""
    return [name for name in names if isinstance(load(name), Metric | FeatureMetric)]


def of_features(names: Iterable[str]) -> list[str]:
    """Those of the metrics that measure the features of samples."""
    return [name for name in names if isinstance(load(name), FeatureMetric)]


def of_models(names: Iterable[str]) -> list[str]:
    """Those of the metrics that measure a velocity."""
    return [name for name in names if isinstance(load(name), ModelMetric)]


def shown(metric: AnyMetric, value: str, num_samples: int) -> str:
    """The name of a metric's value over so many samples."""
    if not isinstance(metric, FeatureMetric):
        return value
    return f"{value}_{num_samples // 1000}k" if num_samples % 1000 == 0 else f"{value}_{num_samples}"


def _of_finite(name: str, metric: FeatureMetric) -> Callable[..., Values]:
    def compute(samples, reference) -> Values:
        if not samples.finite:
            return dict.fromkeys(metric.values, float("nan"))
        return metric.compute(samples, reference)

    return compute


def _guarded(name: str, metric: Metric) -> Callable[..., Values]:
    def compute(samples: Float[np.ndarray, "n *d"], dataset, labels: Labels = None, seed: int = 0) -> Values:
        check(name, dataset)
        if len(samples) < FEWEST:
            raise UsageError(f"metric {name!r} needs at least {FEWEST} samples, got {len(samples)}")
        samples = np.asarray(samples[: metric.num_samples], np.float64)
        if not np.isfinite(samples).all():
            return dict.fromkeys(metric.values, float("nan"))
        labels = None if labels is None else labels[: metric.num_samples]
        return {key: float(value) for key, value in metric.compute(samples, dataset, labels, seed).items()}

    return compute


def _found() -> dict[str, AnyMetric]:
    package = sys.modules[__name__]
    files = (importlib.import_module(f"{__name__}.{file}") for file in lookup.modules(package))
    return {name: metric for file in files for name, metric in getattr(file, "METRICS", {}).items()}
