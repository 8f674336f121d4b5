"""What is kept of the features of a set of images, which pass by in blocks: sums in float64, and the first features.

So neither the images nor all of their features need lie in memory, and blocks of any size give the same.
"""

from collections.abc import Iterable
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int
from scipy.special import log_softmax, xlogy

from flowmaps.metrics._inception import Features

KEPT = 10_000
"""Images whose features are kept, for metrics that hold each against each."""
SPLITS = 10
"""Parts of consecutive images of which each has its inception score."""


class Gaussian(NamedTuple):
    """The first two moments of features."""

    mean: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]


class Moments(NamedTuple):
    """Sums over features."""

    count: int
    total: Float[np.ndarray, " d"]
    products: Float[np.ndarray, "d d"]
    """Of each feature with each."""


class Scores(NamedTuple):
    """Sums over the classes' probabilities p of the images in each of SPLITS parts."""

    count: Int[np.ndarray, " splits"]
    probability: Float[np.ndarray, "splits classes"]
    negative_entropy: Float[np.ndarray, " splits"]
    """Of sum p log p."""


Sums = TypeVar("Sums", Moments, Scores)


class Summary(NamedTuple):
    """Of the features of a set of images."""

    pool: Moments
    spatial: Moments
    scores: Scores
    kept: Float[np.ndarray, "k d"]
    """`pool` of the first KEPT images."""

    @property
    def finite(self) -> bool:
        """Whether every image had features."""
        return all(np.isfinite(m.total).all() for m in (self.pool, self.spatial))


def summarise(blocks: Iterable[Features], count: int) -> Summary:
    """Of `count` images, whose features come in blocks in their order."""
    seen, kept, summary = 0, [], None
    for block in blocks:
        pool, spatial, logits = (np.asarray(x, np.float64) for x in block)
        kept.append(np.asarray(block.pool)[: max(KEPT - seen, 0)])
        part = (moments(pool), moments(spatial), scores(logits, (seen + np.arange(len(pool))) * SPLITS // count))
        summary = part if summary is None else tuple(map(joined, summary, part))
        seen += len(pool)
    return Summary(*summary, np.concatenate(kept))


def moments(x: Float[np.ndarray, "n d"]) -> Moments:
    """The sums over a block."""
    return Moments(len(x), x.sum(axis=0), x.T @ x)


def scores(logits: Float[np.ndarray, "n classes"], part: Int[np.ndarray, " n"]) -> Scores:
    """The sums over a block whose images belong to these parts."""
    log_p = log_softmax(logits, axis=1)
    p = np.exp(log_p)
    belongs = (part == np.arange(SPLITS)[:, None]).astype(np.float64)
    return Scores(np.bincount(part, minlength=SPLITS), belongs @ p, belongs @ (p * log_p).sum(axis=1))


def joined(a: Sums, b: Sums) -> Sums:
    """The sums over both of two blocks."""
    return type(a)(*(x + y for x, y in zip(a, b, strict=True)))


def gaussian(m: Moments) -> Gaussian:
    """Mean and unbiased covariance."""
    mean = m.total / m.count
    return Gaussian(mean, (m.products - m.count * np.outer(mean, mean)) / (m.count - 1))


def inception_score(s: Scores) -> float:
    """exp of the mutual information of image and class, mean over the parts. Salimans et al. 2016, arXiv:1606.03498."""
    mean = s.probability / s.count[:, None]
    return float(np.mean(np.exp(s.negative_entropy / s.count - xlogy(mean, mean).sum(axis=1))))
