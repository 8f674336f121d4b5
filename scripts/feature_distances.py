"""Distances between two sets of features of your own, such as those of DINOv2 or CLIP.

    python scripts/feature_distances.py samples.npz reference.npz

Each file holds `features` [N, d], a row an image, both made in the same way. Prints one JSON line: fd, the Frechet
distance (with dinov2_vitl14's features of 50,000 samples against all training images it is what papers call FD-DINOv2),
and cmmd, 1,000 times the discrepancy of the rows at unit norm (with CLIP's embeddings it is CMMD).
"""

import argparse
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package need not be installed

from flowmaps.errors import MissingError, UsageError
from flowmaps.metrics.frechet import frechet
from flowmaps.metrics.kernel import cmmd


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", type=Path, help="features of the samples")
    parser.add_argument("reference", type=Path, help="features of real images")
    given = parser.parse_args(arguments)
    try:
        print(json.dumps(measure(given.samples, given.reference)))
    except (UsageError, MissingError) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def measure(samples: Path, reference: Path) -> dict[str, float | int]:
    """Both distances, and how many rows each set has. Raises UsageError where the features do not compare."""
    x, y = read(samples), read(reference)
    if x.shape[1] != y.shape[1]:
        raise UsageError(
            f"{samples} has features of {x.shape[1]} numbers, {reference} of {y.shape[1]}: embed both alike"
        )
    return {"fd": frechet(x, y), "cmmd": cmmd(x, y), "num_samples": len(x), "num_reference": len(y)}


def read(path: Path) -> np.ndarray:
    """The features of a file, float64. Raises MissingError where there is none, UsageError where it holds others."""
    if not path.is_file():
        raise MissingError(f"there is no file {path}: put an .npz with an array 'features' [N, d] there")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = np.asarray(arrays["features"], np.float64)
    except (OSError, EOFError, ValueError, KeyError, AttributeError, TypeError, zipfile.BadZipFile) as error:
        raise UsageError(f"{path} is not an .npz with an array 'features' [N, d]") from error
    if found.ndim != 2 or len(found) < 2 or not np.isfinite(found).all():
        raise UsageError(f"the features of {path} are {list(found.shape)}, not finite numbers [N, d] of N > 1 images")
    return found


if __name__ == "__main__":
    main()
