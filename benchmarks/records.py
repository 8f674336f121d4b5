"""The files of results that the benchmarks leave: JSON lines, of which the first says what made the others."""

import json
import os
import platform
import re
import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import Any

from flowmaps import workdir

RESULTS = Path(__file__).parents[1] / "results"


def header() -> dict[str, Any]:
    """The command, the machine with its cores, the versions and the commit."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return {
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "machine": found[1] if found else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": workdir.versions(),
        "commit": workdir.commit(),
    }


def save(name: str, lines: Iterable[dict[str, Any]], *, whole: bool = True) -> Path:
    """Writes results/NAME.jsonl, or what is a part of it alone to results/NAME.part.jsonl, each line as it comes."""
    path = RESULTS / (f"{name}.jsonl" if whole else f"{name}.part.jsonl")
    with path.open("w") as file:
        for line in chain([header()], lines):
            file.write(json.dumps(line) + "\n")
            file.flush()
    return path
