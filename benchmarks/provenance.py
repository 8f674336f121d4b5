"""Where numbers come from."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import jax


def provenance(module: str, arguments: Sequence[str]) -> dict[str, object]:
    """The command, the commit, the machine and the versions of a measurement, as the first line of its results has
    them."""
    root = Path(__file__).parents[1]
    commit = subprocess.run(
        ["git", "-C", root, "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "command": " ".join(["python -m", module, *arguments]),
        "commit": commit.stdout.strip() or None,
        "devices": [str(device) for device in jax.devices()],
        "cores": len(os.sched_getaffinity(0)),
        "machine": platform.machine(),
        "python": sys.version.split()[0],
        "jax": jax.__version__,
    }
