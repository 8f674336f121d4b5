"""Compares the solvers that a run was evaluated with: python scripts/solvers.py METRIC WORKDIR PICTURE.png

Prints a Markdown table, a row a solver, with the metric and in brackets the network evaluations at each number of
steps, and draws the metric against the evaluations. The numbers are those of eval/measurements.jsonl, of the newest
checkpoint and its first average; several seeds of sampling are averaged.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from flowmaps import plots

SHOWN = 6
"""Curves that the picture has colours for; the others are grey."""


class Point(NamedTuple):
    """A solver at one number of steps."""

    nfe: int
    value: float


def read(metric: str, workdir: Path) -> tuple[dict[str, dict[int, Point]], float | None]:
    """Solver -> steps -> its point; and the metric's floor."""
    lines = (workdir / "eval" / "measurements.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if row["metric"] == metric and row["reference"] is None]
    newest = max(row["checkpoint"] for row in rows)
    rows = [row for row in rows if row["checkpoint"] == newest and row["ema"] == rows[0]["ema"]]
    found: dict[str, dict[int, list[dict]]] = {}
    for row in rows:
        found.setdefault(solver(row["sampler"]), {}).setdefault(row["steps"], []).append(row)
    points = {name: {steps: point(same) for steps, same in at.items()} for name, at in found.items()}
    return points, rows[0]["floor"]


def solver(sampler: str) -> str:
    """ "diagonal(euler)" -> "euler"; a sampler of flow maps has its own name."""
    return sampler.removeprefix("diagonal(").removesuffix(")") if sampler.startswith("diagonal(") else sampler


def point(rows: Sequence[dict]) -> Point:
    """The mean over seeds."""
    return Point(max(row["nfe"] for row in rows), float(np.mean([row["value"] for row in rows])))


def table(points: Mapping[str, Mapping[int, Point]]) -> str:
    """A row a solver, a column a number of steps."""
    steps = sorted({n for at in points.values() for n in at})
    lines = ["| solver | " + " | ".join(map(str, steps)) + " |", "|---" * (len(steps) + 1) + "|"]
    for name, at in points.items():
        cells = [f"{at[n].value:.3g} ({at[n].nfe})" if n in at else "" for n in steps]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(metric: str, points: Mapping[str, Mapping[int, Point]], floor: float | None) -> bytes:
    """The metric against the evaluations; the best at the fewest evaluations in colour."""
    ranked = sorted(points, key=lambda name: min(p.value * max(p.nfe, 8) for p in points[name].values()))
    with plots.panels(1) as (figure, (axis,)):
        figure.set_size_inches(plots.WIDTH, 4.2)
        for name in points:
            place = ranked.index(name)
            nfe, value = np.transpose(sorted(points[name].values()))
            colour, label = (plots.COLOURS[place], name) if place < SHOWN else (plots.FAINT, None)
            axis.plot(nfe, value, "o-", color=colour, markersize=4, label=label, zorder=-place)
        if floor is not None:
            axis.axhline(floor, color=plots.INK, linestyle=(0, (4, 3)), linewidth=1.2)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_xlabel("network evaluations")
        axis.set_title(metric, loc="left")
        figure.legend(loc="outside right upper")
        return plots.png(figure)


def main(metric: str, workdir: str, target: str) -> None:
    """Prints the table and writes the picture."""
    points, floor = read(metric, Path(workdir))
    print(table(points))
    Path(target).write_bytes(picture(metric, points, floor))


if __name__ == "__main__":
    main(*sys.argv[1:])
