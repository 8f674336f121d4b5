"""Prints the results of runs as a Markdown table: python -m scripts.results METRIC WORKDIR [WORKDIR ...]

One row a config: the metric at each step count and the minutes of training as the logs counted them. Workdirs named
CONFIG_seedN are one row, with the mean over seeds and their standard deviation; the last column names the seeds.
"""

import json
import statistics
import sys
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

from flowmaps import report

SAME = ("checkpoint", "ema", "sampler", "guidance", "guidance_interval", "num_samples", "seed")
"""What the measurements of one line agree in."""


def row(metric: str, name: str, workdirs: Sequence[Path]) -> tuple[list[int], str]:
    """The numbers of steps, and one line of the table."""
    seeds = sorted(json.loads((workdir / "config.json").read_text())["seed"] for workdir in workdirs)
    values: dict[int, list[float]] = {}
    for workdir in workdirs:
        for measured in of_one_protocol(metric, workdir):
            values.setdefault(measured["steps"], []).append(measured["value"])
    cells = [spread(of_seeds) for _, of_seeds in sorted(values.items())]
    took = statistics.mean(report.minutes(report.read_lines(workdir / "metrics.jsonl")) for workdir in workdirs)
    return sorted(values), f"| {name} | {' | '.join(cells)} | {took:.1f} | {', '.join(map(str, seeds))} |"


def of_one_protocol(metric: str, workdir: Path) -> list[dict]:
    """The measurements that agree with the first one of the newest checkpoint in all but the number of steps."""
    lines = (workdir / "eval" / "measurements.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["metric"] == metric and row["reference"] is None]
    if not rows:
        sys.exit(f"{workdir} has no measurement of {metric}")
    newest = [row for row in rows if row["checkpoint"] == max(row["checkpoint"] for row in rows)]
    return [row for row in newest if all(row[field] == newest[0][field] for field in SAME)]


def spread(values: Sequence[float]) -> str:
    """Mean, and where there are several the standard deviation."""
    mean = f"{statistics.mean(values):.3g}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.1g}"


def config_name(workdir: Path) -> str:
    """The workdir's name without its seed."""
    return workdir.name.partition("_seed")[0]


def main(metric: str, *workdirs: str) -> None:
    """Prints the table, with a heading wherever the numbers of steps are others than in the line before."""
    before: list[int] = []
    for name, group in groupby(sorted(map(Path, workdirs), key=config_name), key=config_name):
        steps, line = row(metric, name, list(group))
        if steps != before:
            print(f"| run | {' | '.join(map(str, steps))} | minutes | seeds |\n{'|---' * (len(steps) + 3)}|")
        print(line)
        before = steps


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
