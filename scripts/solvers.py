"""Compares the solvers that a run was evaluated with: python scripts/solvers.py METRIC WORKDIR PICTURE.png

Prints a Markdown table, a row a solver, with the metric and in brackets the network evaluations at each number of
steps, and draws the metric against the evaluations. The numbers are those of eval/measurements.jsonl, of the newest
checkpoint and its average that was measured last; seeds of sampling are averaged.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from flowmaps import measurements, plots
from flowmaps.measurements import Row

SHOWN = 6
"""Curves in colour; the others are grey."""
SAME = ("grid", "guidance", "guidance_interval", "num_samples")
"""What the measurements of one point of the table must agree in."""


class Point(NamedTuple):
    """A solver at one number of steps."""

    nfe: int
    value: float


Points = Mapping[str, Mapping[int, Point]]
"""Solver -> steps -> its point."""


def read(metric: str, workdir: Path) -> list[Row]:
    """The measurements of the metric."""
    rows = measurements.read(workdir / "eval" / "measurements.jsonl")
    rows = [row for row in rows if row["metric"] == metric and row["reference"] is None and row["value"] is not None]
    if not rows:
        sys.exit(f"there is no {metric} in {workdir}/eval/measurements.jsonl")
    rows = [row for row in rows if row["checkpoint"] == max(row["checkpoint"] for row in rows)]
    return [row for row in rows if row["ema"] == rows[-1]["ema"]]


def points(rows: Sequence[Row]) -> Points:
    """A point a solver and number of steps, the mean over seeds."""
    found: dict[str, dict[int, list[Row]]] = {}
    for row in rows:
        found.setdefault(solver(row["sampler"]), {}).setdefault(row["steps"], []).append(row)
    return {name: {steps: point(same) for steps, same in at.items()} for name, at in found.items()}


def solver(sampler: str) -> str:
    """ "diagonal(euler)" -> "euler"; a sampler of flow maps has its own name."""
    return sampler.removeprefix("diagonal(").removesuffix(")") if sampler.startswith("diagonal(") else sampler


def point(rows: Sequence[Row]) -> Point:
    """The mean over seeds."""
    for field in SAME:
        if any(row[field] != rows[0][field] for row in rows):
            sys.exit(f"{rows[0]['sampler']} was measured with several values of {field}: evaluate into another workdir")
    return Point(max(row["nfe"] for row in rows), measurements.spread(rows)[0])


def table(found: Points) -> str:
    """A row a solver, a column a number of steps."""
    steps = sorted({n for at in found.values() for n in at})
    lines = ["| solver | " + " | ".join(map(str, steps)) + " |", "|---" * (len(steps) + 1) + "|"]
    for name, at in found.items():
        cells = [f"{measurements.number(at[n].value)} ({at[n].nfe})" if n in at else "" for n in steps]
        lines.append(f"| `{name}` | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def picture(metric: str, found: Points, floor: float | None) -> bytes:
    """The metric against the evaluations; in colour those that are good at few."""
    ranked = sorted(found, key=lambda name: min(p.value * max(p.nfe, 8) for p in found[name].values()))
    with plots.panels(1) as (figure, (axis,)):
        figure.set_size_inches(plots.WIDTH, 4.2)
        for name in found:
            place, curve = ranked.index(name), sorted(found[name].values())
            colour, label = (plots.COLOURS[place], name) if place < SHOWN else (plots.FAINT, None)
            values = [p.value for p in curve]
            axis.plot([p.nfe for p in curve], values, "o-", color=colour, markersize=4, label=label, zorder=-place)
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
    rows = read(metric, Path(workdir))
    found = points(rows)
    print(table(found))
    Path(target).write_bytes(picture(metric, found, rows[0]["floor"]))


if __name__ == "__main__":
    main(*sys.argv[1:])
