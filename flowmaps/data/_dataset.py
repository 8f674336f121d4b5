"""What a data set is: two sources of examples and the facts that others need to know about them."""

import hashlib
import sys
from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int

ENDLESS = sys.maxsize
"""The length of a source that is a law rather than a list: every index from 0 on is another draw."""


@runtime_checkable
class Source(Protocol):
    """Examples by index. What is drawn for a row depends on (seed, epoch, index) of that row alone."""

    def __len__(self) -> int:
        """The number of examples; ENDLESS for a law."""
        ...

    def batch(
        self, indices: Int[np.ndarray, " n"], seed: int = 0, epoch: int | Int[np.ndarray, " n"] = 0
    ) -> dict[str, np.ndarray]:
        """{"x1": float32 [n, *shape], "label": int32 [n]}, NULL_LABEL where there are no classes.

        `seed` and `epoch` (one for all rows, or one a row) choose the draws of a law and the flips of images.
        """
        ...


class Modes(NamedTuple):
    """Disjoint parts of the plane that hold a law, each an equal share of it."""

    count: int
    of: Callable[[np.ndarray], np.ndarray]
    """x [N, 2] -> int [N], the part that each point lies in, 0 to count - 1, or -1 for none."""


class Coding(NamedTuple):
    """How latents become images."""

    autoencoder: str
    """The .safetensors file of its weights, see flowmaps/autoencoders.py."""
    scale: float
    """What the autoencoder's latents were multiplied by."""
    encoder: str
    """Of the autoencoder that made them what tells it from others; "": not known."""


class Dataset(NamedTuple):
    """A data set; images lie in [-1, 1], channels last."""

    train: Source
    test: Source | None
    """Held out from training; of a plane, fresh exact samples."""
    shape: tuple[int, ...]
    """Of one example."""
    num_classes: int
    """0: the examples have no labels."""
    kind: Literal["plane", "digits", "image", "latent"]
    fingerprint: str
    """A hash of the content, or of the law and its parameters."""
    log_density: Callable[[np.ndarray], np.ndarray] | None = None
    """Of a plane with a closed form: x [N, 2] -> [N], -inf outside the support."""
    modes: Modes | None = None
    """Of a plane whose law is one of separate parts."""
    source: Source | None = None
    """Held-out rows of a second data set, from which generation starts; None: from Gaussian noise."""
    coding: Coding | None = None
    """Of latents that are to be shown as images."""


def fingerprint(*facts: Any) -> str:
    """16 hexadecimal digits that tell data apart: a hash of arrays (shape, type and bytes) and of plain values."""
    digest = hashlib.sha256()
    for fact in facts:
        if isinstance(fact, np.ndarray):
            digest.update(f"{fact.dtype.str}{fact.shape}".encode())
            digest.update(np.ascontiguousarray(fact).data)
        elif isinstance(fact, Mapping):
            digest.update(repr(sorted(fact.items())).encode())
        else:
            digest.update(repr(fact).encode())
        digest.update(b"\n")
    return digest.hexdigest()[:16]
