"""Memorisation: how near are samples to the training data, relative to how near held-out data are?"""

import numpy as np
from jaxtyping import Float

from flowmaps.metrics import Metric, _digits
from flowmaps.metrics._distances import nearest


def nearest_neighbour_ratio(
    x: Float[np.ndarray, "n d"], train: Float[np.ndarray, "m d"], test: Float[np.ndarray, "k d"]
) -> float:
    """Median distance of x to its nearest training point over the same of test.

    1: as new as held-out data; below 1: copies; 0: at least half of x are training points.
    """
    return float(np.median(np.sqrt(nearest(x, train))) / np.median(np.sqrt(nearest(test, train))))


def _compute(samples, dataset, labels, seed):
    train, test = (_digits.images(source) for source in (dataset.train, dataset.test))
    flat = (a.reshape(len(a), -1) for a in (_digits.in_range(samples), train, test))
    return {"nn_ratio": nearest_neighbour_ratio(*flat)}


def _floor(dataset, seed, num_samples=_digits.NUM_SAMPLES):
    return _compute(_digits.images(dataset.test), dataset, None, seed)


METRICS = {
    "nn_ratio": Metric(
        values={"nn_ratio": "one"},
        num_samples=_digits.NUM_SAMPLES,
        kind="digits",
        compute=_compute,
        floor=_floor,
        references=_digits.references(_compute),
    )
}
