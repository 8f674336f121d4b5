"""Turns the PyTorch file of Inception-v3 of 2015-12-05 into the .npz that the metrics of images read.

    python scripts/convert_inception.py pt_inception-2015-12-05-6726825d.pth inception.npz

PyTorch is needed here alone. The file must have the known sha256, which the .npz records beside the digest of its own
arrays; nothing in it is executed.
"""

import argparse
import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package need not be installed

from flowmaps.errors import MissingError, UsageError
from flowmaps.files import write_whole
from flowmaps.metrics import inception

COUNTERS = "num_batches_tracked"
"""PyTorch's batch normalisation counts batches, which evaluation never reads."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help=f"{inception.SOURCE}, or the same file under another name")
    parser.add_argument("output", type=Path, help="the .npz to write")
    given = parser.parse_args(arguments)
    try:
        print(convert(given.source, given.output))
    except (UsageError, MissingError) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def convert(source: Path, output: Path) -> Path:
    """Writes the .npz and returns its path. Raises MissingError where `source` is not there, UsageError where it is
    another file."""
    if not source.is_file():
        raise MissingError(f"there is no file {source}: {inception.HOW_TO_GET}")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    if digest != inception.SOURCE_SHA256:
        raise UsageError(f"{source} has the sha256 {digest}, and is not {inception.SOURCE}: {inception.HOW_TO_GET}")
    write_whole(output, inception.packed(arrays(source), digest))
    return output


def arrays(source: Path) -> dict[str, np.ndarray]:
    """The arrays of a state dict by name."""
    import torch

    state = torch.load(source, map_location="cpu", weights_only=True)
    return {name: tensor.numpy() for name, tensor in state.items() if not name.endswith(COUNTERS)}


if __name__ == "__main__":
    main()
