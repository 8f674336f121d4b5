"""Maximum mean discrepancy, squared and unbiased. Gretton et al. 2012 (JMLR 13), eq. 3.

The kernel distance of features is Binkowski et al. 2018, arXiv:1801.01401; over the whole sets rather than over
random subsets, which estimates the same number with less variance. It may be negative.
"""

from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float

from flowmaps.metrics import _digits, _plane
from flowmaps.metrics._distances import between, row_blocks

Kernel = Callable[[Float[np.ndarray, "n d"], Float[np.ndarray, "m d"]], Float[np.ndarray, "n m"]]


def mmd(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"], kernel: Kernel) -> float:
    """Squared discrepancy: mean k(x, x') + mean k(y, y') - 2 mean k(x, y), without a point paired with itself."""
    return _mean_of_pairs(x, kernel) + _mean_of_pairs(y, kernel) - 2 * _mean(x, y, kernel)


def polynomial(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> Float[np.ndarray, "n m"]:
    """(x.y / d + 1)^3."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def gaussian(bandwidths: Sequence[float]) -> Kernel:
    """The mean of exp(-|x - y|^2 / 2 h^2) over the bandwidths h."""

    def kernel(x, y):
        distances = between(x, y)
        return sum(np.exp(distances / (-2 * h**2)) for h in bandwidths) / len(bandwidths)

    return kernel


def kernel_distance(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """Squared discrepancy of features under the cubic kernel."""
    return mmd(x, y, polynomial)


def cmmd(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """1,000 times the squared discrepancy of embeddings, brought to unit norm, under a Gaussian kernel of bandwidth 10,
    with every point paired with itself too. Jayasumana et al. 2024, arXiv:2401.09603, where CLIP embeds the images."""
    x, y = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (x, y))
    kernel = gaussian((10.0,))
    return 1000 * (_mean(x, x, kernel) + _mean(y, y, kernel) - 2 * _mean(x, y, kernel))


def gaussian_mmd(x: Float[np.ndarray, "n d"], y: Float[np.ndarray, "m d"]) -> float:
    """Squared discrepancy under Gaussian kernels of 0.1, 0.3 and 1 times the spread (rms over axes) of y."""
    spread = np.sqrt(y.var(axis=0).mean())
    return mmd(x, y, gaussian((0.1 * spread, 0.3 * spread, spread)))


def _mean(x, y, kernel: Kernel) -> float:
    return _sum(x, y, kernel) / (len(x) * len(y))


def _sum(x, y, kernel: Kernel) -> float:
    return float(sum(kernel(x[rows], y).sum() for rows in row_blocks(len(x), len(y))))


def _mean_of_pairs(x, kernel: Kernel) -> float:
    itself = sum(float(kernel(point, point)[0, 0]) for point in x[:, None])
    return (_sum(x, x, kernel) - itself) / (len(x) * (len(x) - 1))


METRICS = {
    "kid_digits": _digits.on_features("kid_digits", kernel_distance),
    "mmd": _plane.against_samples("mmd", gaussian_mmd, num_samples=2_000),
}
