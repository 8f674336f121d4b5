"""Metrics of images by the features of Inception-v3 of 2015-12-05, or where the name says so by those of a classifier
of one's own; docs/metrics.md has the protocol.

fid               Frechet distance of the last layer's features: Heusel et al. 2017, arXiv:1706.08500
sfid              the same of seven channels of the inside, with their places: Nash et al. 2021, arXiv:2103.03841
kid               squared discrepancy under a cubic kernel, unbiased: Binkowski et al. 2018, arXiv:1801.01401
inception_score   Salimans et al. 2016, arXiv:1606.03498, of ten parts of consecutive samples, in the order of labels
inception_manifold    precision, recall, density, coverage, as manifold.py says
fd_classifier     the Frechet distance of a classifier's last hidden layer, see classifier.py

The bias of a Frechet distance falls with the number of samples, so that number is part of each value's name.
"""

import numpy as np

from flowmaps.metrics import FeatureMetric, Values, summary
from flowmaps.metrics.frechet import frechet_distance
from flowmaps.metrics.kernel import kernel_distance
from flowmaps.metrics.manifold import manifold
from flowmaps.metrics.statistics import Reference
from flowmaps.metrics.summary import KEPT, Summary, gaussian

PUBLISHED = 50_000
"""Samples of published numbers."""


def fid(samples: Summary, reference: Reference) -> Values:
    """Of the last layer's features."""
    return {"fid": frechet_distance(*gaussian(samples.pool), *reference.pool)}


def fd_classifier(samples: Summary, reference: Reference) -> Values:
    """Of the last hidden layer."""
    return {"fd_classifier": frechet_distance(*gaussian(samples.pool), *reference.pool)}


def sfid(samples: Summary, reference: Reference) -> Values:
    """Of the spatial features."""
    return {"sfid": frechet_distance(*gaussian(samples.spatial), *reference.spatial)}


def kid(samples: Summary, reference: Reference) -> Values:
    """Over all pairs of what is kept rather than the mean over random subsets, which has the same expectation."""
    return {"kid": kernel_distance(_exact(samples.kept), _exact(reference.kept))}


def inception_score(samples: Summary, reference: Reference) -> Values:
    """Of samples alone."""
    return {"inception_score": summary.inception_score(samples.scores)}


def inception_manifold(samples: Summary, reference: Reference) -> Values:
    """Against as many images as there are samples, or all that are kept: coverage depends on the ratio."""
    x = _exact(samples.kept)
    return {f"inception_{name}": value for name, value in manifold(x, _exact(reference.kept[: len(x)])).items()}


def _exact(kept: np.ndarray) -> np.ndarray:
    return np.asarray(kept, np.float64)


MANIFOLD = ("inception_precision", "inception_recall", "inception_density", "inception_coverage")
METRICS = {
    "fid": FeatureMetric({"fid": "lower"}, PUBLISHED, fid),
    "sfid": FeatureMetric({"sfid": "lower"}, PUBLISHED, sfid, reads="spatial"),
    "kid": FeatureMetric({"kid": "lower"}, KEPT, kid, reads="kept"),
    "inception_score": FeatureMetric({"inception_score": "higher"}, PUBLISHED, inception_score),
    "inception_manifold": FeatureMetric(dict.fromkeys(MANIFOLD, "higher"), KEPT, inception_manifold, reads="kept"),
    "fd_classifier": FeatureMetric({"fd_classifier": "lower"}, PUBLISHED, fd_classifier, network="classifier"),
}
