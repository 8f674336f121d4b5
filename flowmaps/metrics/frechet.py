"""Frechet distance between Gaussians fitted to two sets of features. Heusel et al. 2017, arXiv:1706.08500, eq. 6.

With the digits classifier's features it is `fd_digits`: a number of this project, comparable with nothing else.
"""

import numpy as np
from jaxtyping import Float

from flowmaps.metrics import _digits


def frechet_distance(
    mean_x: Float[np.ndarray, " d"],
    covariance_x: Float[np.ndarray, "d d"],
    mean_y: Float[np.ndarray, " d"],
    covariance_y: Float[np.ndarray, "d d"],
) -> float:
    """|mean_x - mean_y|^2 + tr(C_x + C_y - 2 (C_x C_y)^(1/2)), for covariances of any rank."""
    root = square_root(covariance_x)
    overlap = np.sqrt(np.maximum(np.linalg.eigvalsh(root @ covariance_y @ root), 0)).sum()
    spread = np.trace(covariance_x) + np.trace(covariance_y) - 2 * overlap
    return max(0.0, float(np.sum((mean_x - mean_y) ** 2) + spread))


def square_root(covariance: Float[np.ndarray, "d d"]) -> Float[np.ndarray, "d d"]:
    """The symmetric square root of a positive semi-definite matrix."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(np.maximum(values, 0))) @ vectors.T


def moments(x: Float[np.ndarray, "n d"]) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """Mean and unbiased covariance."""
    return x.mean(axis=0), np.cov(x, rowvar=False)


def frechet(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """Frechet distance of the Gaussians fitted to x and to y; biased upwards by about 1/n + 1/m."""
    return frechet_distance(*moments(x), *moments(y))


METRICS = {"fd_digits": _digits.on_features("fd_digits", frechet)}
