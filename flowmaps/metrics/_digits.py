"""Metrics of digits: two sets of images become two sets of classifier features in one scale."""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int

from flowmaps.metrics import Metric, features

NUM_SAMPLES = 1_500
"""Class-conditional samples, against the 1,500 training digits."""
TRACE = 100.0
"""Trace of the real features' covariance, after scaling."""
FLOOR_SPLITS = 10

Images = Float[np.ndarray, "n h w c"]
Measure = Callable[[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]], float | dict[str, float]]


def on_features(names: str | Sequence[str], measure: Measure, *, better: str = "lower") -> Metric:
    """The metric measure(features of samples, features of the training digits), scaled by `to_real_scale`.

    Its floor holds real digits against the others, a random n of all 1,797 against the rest and at most half of
    them (898 against 899), mean of 10 splits. That is fewer than 1,500, so a good model may come out below it.
    """
    names = (names,) if isinstance(names, str) else tuple(names)

    def named(x, y):
        value = measure(*to_real_scale(x, y))
        return value if isinstance(value, dict) else {names[0]: value}

    def compute(samples, dataset, labels, seed):
        return named(features.extract(in_range(samples)), features.extract(images(dataset.train)))

    def floor(dataset, seed, num_samples=NUM_SAMPLES):
        real = np.concatenate([features.extract(images(s)) for s in (dataset.train, dataset.test)])
        orders = (np.random.default_rng((seed, i)).permutation(len(real)) for i in range(FLOOR_SPLITS))
        n = min(num_samples, len(real) // 2)
        splits = [named(real[order[:n]], real[order[n:]]) for order in orders]
        return {name: float(np.mean([split[name] for split in splits])) for name in names}

    return Metric(dict.fromkeys(names, better), NUM_SAMPLES, "digits", compute, floor, references=references(compute))


def references(compute: Callable) -> dict[str, Callable]:
    """The models that a table of digits sets beside its rows."""

    def gaussian_row(dataset, seed):
        samples, labels = gaussian_per_class(dataset, NUM_SAMPLES, seed)
        return compute(samples, dataset, labels, seed)

    return {"a Gaussian per class": gaussian_row}


def to_real_scale(
    x: Float[np.ndarray, "n d"], real: Float[np.ndarray, "m d"]
) -> tuple[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]]:
    """Both sets times one factor, after which the real covariance has trace 100."""
    scale = np.sqrt(TRACE / real.var(axis=0, ddof=1).sum())
    return scale * x, scale * real


def gaussian_per_class(dataset, num_samples: int, seed: int) -> tuple[Images, Int[np.ndarray, " n"]]:
    """Samples of a Gaussian fitted to the pixels of each class of the training digits, and their labels."""
    batch = dataset.train.batch(np.arange(len(dataset.train)))
    pixels, labels = np.asarray(batch["x1"], np.float64).reshape(len(dataset.train), -1), batch["label"]
    rng = np.random.default_rng(seed)
    chosen = rng.permutation(np.resize(labels, num_samples))
    samples = np.empty((num_samples, pixels.shape[1]))
    for label in np.unique(labels):
        of_class = pixels[labels == label]
        rows = chosen == label
        samples[rows] = rng.multivariate_normal(
            of_class.mean(axis=0), np.cov(of_class, rowvar=False), rows.sum(), method="eigh"
        )
    return in_range(samples.reshape(num_samples, *dataset.shape)), chosen


def images(source) -> Images:
    """All images of a source, float64."""
    return np.asarray(source.batch(np.arange(len(source)))["x1"], np.float64)


def in_range(samples: Images) -> Images:
    """Samples cut to the range of pixels, [-1, 1]."""
    return np.clip(samples, -1, 1)
