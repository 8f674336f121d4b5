"""Measures how many examples a second the loader gives, alone: what a training step must not outrun.

    python scripts/loader_speed.py --data="tfds(dataset='faces',dir='/my/tfds',flip=True)" --batch_size=256

The data are named as in a config, with their options in brackets. It prints one JSON line.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package need not be installed

from flowmaps import data, lookup
from flowmaps.errors import MissingError, UsageError

WARM = 8
"""Batches before the clock runs: opening files, and what is read ahead."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="such as \"folder(dir='/my/images')\"")
    parser.add_argument("--batch_size", type=int, default=256, help="examples in a batch of this process")
    parser.add_argument("--seconds", type=float, default=10.0, help="how long to measure, at least")
    try:
        chosen = parser.parse_args(arguments)
        print(json.dumps(measure(chosen.data, chosen.batch_size, chosen.seconds)))
    except (UsageError, MissingError) as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


def measure(text: str, batch_size: int = 256, seconds: float = 10.0) -> dict[str, object]:
    """The speed over `seconds`. Raises as the data set and its loader do."""
    name, options = lookup.parse_call("--data", text)
    dataset = data.load(name, **options)
    batches = data.loader(dataset.train, batch_size=batch_size, seed=0)
    for _ in range(WARM):
        next(batches)
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds or count == 0:
        next(batches)
        count += 1
    speed = count * batch_size / (time.perf_counter() - start)
    shape, cores = list(dataset.shape), len(os.sched_getaffinity(0))
    return {"data": text, "shape": shape, "batch_size": batch_size, "cores": cores, "examples_per_second": round(speed)}


if __name__ == "__main__":
    main()
