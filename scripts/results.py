"""Prints the results of runs as a Markdown table: python scripts/results.py METRIC WORKDIR [WORKDIR ...]

One row a workdir: the metric at each step count (mean and, over several seeds of evaluation, spread), the minutes of
training as its log counted them, and the seed.
"""

import json
import statistics
import sys
from itertools import pairwise
from pathlib import Path


def row(metric: str, workdir: Path) -> str:
    """One line of the table."""
    lines = [json.loads(line) for line in (workdir / "eval" / "measurements.jsonl").read_text().splitlines()]
    rows = [r for r in lines if r["metric"] == metric and r["reference"] is None]
    values: dict[int, list[float]] = {}
    for r in rows:
        values.setdefault(r["steps"], []).append(r["value"])
    cells = [f"{statistics.mean(v):.3g}" for _, v in sorted(values.items())]
    config = json.loads((workdir / "config.json").read_text())
    return f"| {workdir.name} | {' | '.join(cells)} | {minutes(workdir):.1f} | {config['seed']} |"


def minutes(workdir: Path) -> float:
    """Minutes of training, from the logged speeds between log points."""
    logged = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    points = [(entry["step"], entry["steps_per_second"]) for entry in logged if "steps_per_second" in entry]
    steps = [points[0][0], *(b[0] - a[0] for a, b in pairwise(points))]
    return sum(n / speed for n, (_, speed) in zip(steps, points, strict=True)) / 60


def main(metric: str, *workdirs: str) -> None:
    """Prints the table."""
    print("| run | 1 | 2 | 4 | 8 | 16 | minutes | seed |\n|---|---|---|---|---|---|---|---|")
    for workdir in workdirs:
        print(row(metric, Path(workdir)))


if __name__ == "__main__":
    main(*sys.argv[1:])
