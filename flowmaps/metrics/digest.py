"""What tells one set of arrays from another."""

import hashlib
from collections.abc import Mapping

import numpy as np


def sha256_of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, shapes and float32 values: it does not depend on how a file of them is packed."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name], "<f4")
        digest.update(f"{name} {array.shape}".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()
