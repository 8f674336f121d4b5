"""Compares the solvers that runs were evaluated with: python -m scripts.solvers PICTURE.png METRIC=WORKDIR ...

For each run a Markdown table, a row a solver, with the metric and in brackets the network evaluations at each number of
steps, and a panel of the metric against the evaluations. The numbers are those of eval/measurements.jsonl, of the
newest checkpoint and its average that was measured last; seeds of sampling are averaged.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from flowmaps import measurements, plots
from flowmaps.measurements import Row

FEW = 8
"""Evaluations below which fewer are no merit."""
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


def in_colour(each: Sequence[Points]) -> dict[str, str]:
    """The colours of the solvers that are good at few evaluations, in all runs together."""

    def cost(name: str) -> float:
        return sum(min(p.value * max(p.nfe, FEW) for p in found[name].values()) for found in each if name in found)

    return dict(zip(sorted({name for found in each for name in found}, key=cost), plots.COLOURS, strict=False))


def picture(each: Mapping[str, Points], floors: Sequence[float | None]) -> bytes:
    """A panel a run: title -> its points."""
    colours = in_colour(list(each.values()))
    with plots.panels(len(each)) as (figure, axes):
        figure.set_size_inches(plots.WIDTH, 4.2)
        for axis, (title, found), floor in zip(axes, each.items(), floors, strict=True):
            for name in sorted(found, key=colours.__contains__):
                nfe, values = zip(*sorted(found[name].values()), strict=True)
                axis.plot(nfe, values, "o-", color=colours.get(name, plots.FAINT), markersize=4, label=name)
            if floor is not None:
                axis.axhline(floor, color=plots.INK, linestyle=(0, (4, 3)), linewidth=1.2)
            axis.set_xscale("log")
            axis.set_yscale("log")
            axis.set_xlabel("network evaluations")
            axis.set_title(title, loc="left")
        found = {label: handle for handle, label in zip(*axes[0].get_legend_handles_labels(), strict=True)}
        figure.legend([found[name] for name in colours], colours, loc="outside lower left", ncols=3)
        return plots.png(figure)


def main(target: str, *runs: str) -> None:
    """Prints the tables and writes the picture."""
    each, floors = {}, []
    for metric, _, workdir in (run.partition("=") for run in runs):
        rows = read(metric, Path(workdir))
        each[f"{metric}, {Path(workdir).name}"] = found = points(rows)
        floors.append(rows[0]["floor"])
        print(f"{metric}, {workdir}\n\n{table(found)}\n")
    Path(target).write_bytes(picture(each, floors))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
