"""Precision and recall, density and coverage: do samples lie in balls around data, and data in balls around samples?

A ball reaches from a point to its k-th nearest neighbour within its own set, edge included.
Kynkaanniemi et al. 2019, arXiv:1904.06991 (k = 3); Naeem et al. 2020, arXiv:2002.09797 (k = 5).
"""

import numpy as np
from jaxtyping import Float

from flowmaps.metrics import _digits
from flowmaps.metrics._distances import neighbour_radius, squared_distances


def manifold(
    x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], *, k: int = 3, k_density: int = 5
) -> dict[str, float]:
    """Of samples x against data y, each set with more than max(k, k_density) points:

    precision: share of x in any ball around y. recall: share of y in any ball around x. density: balls around y
    that hold an x, mean over x, over k_density (may exceed 1). coverage: share of balls around y that hold an x.
    """
    radius_x, radius_y = neighbour_radius(x, k), neighbour_radius(y, k)
    radius_density = neighbour_radius(y, k_density)
    precise, dense = np.zeros(len(x)), np.zeros(len(x))
    recalled, covered = np.zeros(len(y), bool), np.zeros(len(y), bool)
    for rows, distance in squared_distances(x, y):
        inside = distance <= radius_density
        precise[rows] = (distance <= radius_y).any(axis=1)
        dense[rows] = inside.sum(axis=1) / k_density
        recalled |= (distance <= radius_x[rows, None]).any(axis=0)
        covered |= inside.any(axis=0)
    shares = {"precision": precise, "recall": recalled, "density": dense, "coverage": covered}
    return {name: float(share.mean()) for name, share in shares.items()}


METRICS = {"manifold": _digits.on_features(("precision", "recall", "density", "coverage"), manifold, better="higher")}
