"""The file of statistics that features of samples are held against: an .npz with mu, sigma, and sFID's mu_s, sigma_s.

Its own kind also says how its images became features, and of which images it is; it is refused where either differs.
Of foreign files, in the keys of pytorch-fid, EDM and ADM, or of MeanFlow, nothing but the dimension can be checked.
"""

import io
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from jaxtyping import Float

from flowmaps.errors import MissingError, UsageError
from flowmaps.metrics.digest import sha256_of_arrays
from flowmaps.metrics.summary import Gaussian, Summary, gaussian

KEYS = (("mu", "sigma"), ("ref_mu", "ref_sigma"))
SPATIAL_KEYS = (("mu_s", "sigma_s"),)
FREE = ("versions",)
"""Facts in which a file of the own kind may differ from what is expected."""


class Reference(NamedTuple):
    """What features of samples are held against."""

    pool: Gaussian
    spatial: Gaussian | None
    """None where a foreign file has none; so `kept`."""
    kept: Float[np.ndarray, "k d"] | None
    """The features of some images, in a random order."""
    about: str
    """Which statistics they are, in words."""


def of_summary(summary: Summary, about: str) -> Reference:
    """The reference that a summary is."""
    return Reference(gaussian(summary.pool), gaussian(summary.spatial), summary.kept, about)


def packed(reference: Reference, facts: Mapping[str, Any]) -> bytes:
    """The file of a reference with what is to be known of it."""
    (mu, sigma), (mu_s, sigma_s) = reference.pool, reference.spatial
    file = io.BytesIO()
    np.savez(file, mu=mu, sigma=sigma, mu_s=mu_s, sigma_s=sigma_s, kept=reference.kept, **facts)
    return file.getvalue()


def read(
    path: str | Path, facts: Mapping[str, Any], dimensions: tuple[int, int], about: Callable[[Mapping[str, Any]], str]
) -> Reference:
    """The reference in a file, for features of these dimensions (of `pool` and `spatial`).

    facts: what is said of a file of the own kind (all but FREE must agree). about: the facts of such a file -> as of
    the Reference, to which a foreign file's name is preferred. Raises MissingError where there is no file, UsageError
    where it holds no such statistics or those of other features or images.
    """
    if not Path(path).is_file():
        raise MissingError(
            f"there is no file of statistics {path}: make one by --mode=stats, or leave eval.reference out"
        )
    arrays = _arrays(Path(path))
    pool = _gaussian(arrays, KEYS, dimensions[0], path)
    if pool is None:
        raise UsageError(f"{path} holds {', '.join(arrays)}: statistics are mu and sigma, or ref_mu and ref_sigma")
    spatial = _gaussian(arrays, SPATIAL_KEYS, dimensions[1], path)
    if "feature" not in arrays:
        logging.warning("%s says nothing of its images, their resize and scaling: compare it with care", path)
        digest = sha256_of_arrays(pool._asdict())[:8]
        return Reference(pool, spatial, None, f"{Path(path).name} ({digest}), preprocessing unknown")
    check_facts(arrays, facts, path)
    of_file = {name: str(value) for name, value in arrays.items() if value.ndim == 0}
    return Reference(pool, spatial, arrays.get("kept"), about({**of_file, **facts}))


def check_facts(found: Mapping[str, np.ndarray], expected: Mapping[str, Any], path: str | Path) -> None:
    """Raises UsageError that names the first fact in which they differ."""
    for name, value in expected.items():
        theirs = str(found.get(name, "absent"))
        if name not in FREE and theirs != str(value):
            raise UsageError(
                f"{path} has {name}={theirs!r}, and here it is {str(value)!r}, so that numbers would not compare: "
                "leave eval.reference out, for these data's own statistics"
            )


def _gaussian(
    arrays: Mapping[str, np.ndarray], keys: tuple[tuple[str, str], ...], size: int, path: str | Path
) -> Gaussian | None:
    for mean, covariance in keys:
        if mean in arrays and covariance in arrays:
            found = Gaussian(*(np.asarray(arrays[name], np.float64) for name in (mean, covariance)))
            if (found.mean.shape, found.covariance.shape) != ((size,), (size, size)):
                raise UsageError(
                    f"{path} has {mean} {list(found.mean.shape)} and {covariance} {list(found.covariance.shape)}, and "
                    f"the features here have {size} numbers: it is of another network"
                )
            if not all(np.isfinite(array).all() for array in found):
                raise UsageError(f"{path} has numbers in {mean} or {covariance} that are not finite: make it again")
            return found
    return None


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except (OSError, EOFError, ValueError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise UsageError(
            f"{path} is not an .npz of arrays. A pickle (EDM2's .pkl) is never opened here, for it may run code; where "
            'you trust it: python -c "import pickle, numpy; '
            f"numpy.savez('statistics.npz', **pickle.load(open('{path}', 'rb'))['fid'])\""
        ) from error
