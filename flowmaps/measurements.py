"""The file of measurements: a JSON line each with the whole protocol behind its number, and the tables made of them."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from flowmaps.files import write_whole

Row = Mapping[str, Any]
"""A measurement; see `evaluate.run` for its fields."""
Cost = Literal["steps", "nfe"]
"""What quality is held against: the field of a measurement."""

GUIDANCE = ("guidance", "guidance_interval", "guidance_weak")
"""What is said of a measurement's guidance: its scale, when it acts, and the weaker run, null where there is none."""
PROTOCOL = (
    "metric",
    "steps",
    "sampler",
    "grid",
    *GUIDANCE,
    "ema",
    "seed",
    "num_samples",
    "checkpoint",
    "config",
    "data",
    "reference",
    "against",
)
"""What tells measurements apart: of two that agree in all of these the later one replaces the earlier."""
GROUP = ("checkpoint", "ema", "sampler", *GUIDANCE, "against")
"""What the rows of one table agree in."""
COLUMNS = (
    *("metric", "steps", "value", "floor", "expected", "nfe", "sampler", "guidance", "ema", "seed", "num_samples"),
    *("checkpoint", "config", "data", "reference", "seconds"),
)
"""Of the .csv file."""


class Table(NamedTuple):
    """Cells as text: a line a metric, a column a step count, then the floor and the reference models."""

    title: str
    note: str
    """Its protocol."""
    header: list[str]
    body: list[list[str]]


def read(path: Path) -> list[Row]:
    """The measurements of a file; none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def record(path: Path, rows: Iterable[Row]) -> list[Row]:
    """Adds measurements to a file, each in place of an earlier one with the same protocol; all that it then holds."""
    merged = list({identity(row): row for row in (*read(path), *rows)}.values())
    write_whole(path, "".join(json.dumps(row, allow_nan=False) + "\n" for row in merged))
    return merged


def identity(row: Row) -> str:
    """The protocol of a measurement as one string."""
    return json.dumps([row.get(field) for field in PROTOCOL])  # files of before lack some


def as_csv(rows: Iterable[Row]) -> str:
    """The measurements as comma-separated values, a line each."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def tables(rows: Sequence[Row]) -> list[Table]:
    """One table for each checkpoint, average, sampler and guidance; reference models stand in all of them."""
    measured = [row for row in rows if row["reference"] is None]
    references = [row for row in rows if row["reference"] is not None]
    return [_table(group, references) for group in groups(measured)]


def groups(rows: Iterable[Row]) -> list[list[Row]]:
    """The measurements by what tables and curves have in common, in the order of the first of each."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(json.dumps([row.get(field) for field in GROUP]), []).append(row)
    return list(found.values())


def scales(rows: Iterable[Row]) -> list[float]:
    """The scales of guidance that samples were measured with, in ascending order."""
    return sorted({row["guidance"] for row in rows if row["guidance"] is not None})


def phrases(rows: Sequence[Row]) -> list[str]:
    """What a group of measurements has in common, in words."""
    first = rows[0]
    seeds = len({row["seed"] for row in rows})
    return [
        f"checkpoint {first['checkpoint']:,}",
        "raw weights" if first["ema"] is None else f"average {first['ema']}",
        first["sampler"],
        *([guided(first)] if first["guidance"] != 1 else []),
        *([f"{seeds} seeds"] if seeds > 1 else []),
    ]


def guided(row: Row) -> str:
    """A measurement's guidance in words."""
    low, high = row["guidance_interval"]
    when = "" if (low, high) == (0, 1) else f" from {low:g} to {high:g}"
    weak = row.get("guidance_weak")
    return f"guidance {row['guidance']:g}{when}" + (f" by {weak}" if weak else "")


def labels(groups: Sequence[Sequence[Row]]) -> list[str]:
    """For each group the words that not all groups share."""
    each = [phrases(group) for group in groups]
    shared = set.intersection(*map(set, each)) if each else set()
    return [SEPARATOR.join(phrase for phrase in words if phrase not in shared) for words in each]


def note(rows: Sequence[Row]) -> str:
    """The rest of the protocol of a group of measurements, in words."""
    first = rows[0]
    metrics: dict[int, list[str]] = {}
    for row in rows:
        names = metrics.setdefault(row["num_samples"], [])
        if row["metric"] not in names:
            names.append(row["metric"])
    counts = [f"{n:,} samples" + (f" ({', '.join(m)})" if len(metrics) > 1 else "") for n, m in metrics.items()]
    seeds = sorted({row["seed"] for row in rows})
    drawn = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    against = dict.fromkeys(f"against {row['against']}" for row in rows if row.get("against"))
    return SEPARATOR.join([*counts, drawn, f"data {first['dataset']} {first['data']}", *against])


def as_text(table: Table) -> str:
    """The table in aligned columns, for a log."""
    lines = [table.header, *table.body]
    widths = [max(len(line[i]) for line in lines) for i in range(len(table.header))]

    def aligned(line: list[str]) -> str:
        first, *rest = (
            cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        )
        return "  ".join([first, *rest]).rstrip()

    return "\n".join([table.title, *map(aligned, lines), table.note])


def points(rows: Sequence[Row], cost: Cost) -> list[tuple[int, list[Row]]]:
    """The measurements of each step count in ascending order, after what they cost: the most of any of them, as seeds
    may cost an adaptive solver more or less."""
    at = [[row for row in rows if row["steps"] == steps] for steps in sorted({row["steps"] for row in rows})]
    return [(max(row[cost] for row in same), same) for same in at]


def spread(rows: Sequence[Row]) -> tuple[float, float]:
    """Mean and standard deviation over seeds of the rows' values; nan where one of them was not finite."""
    values = np.array([math.nan if row["value"] is None else row["value"] for row in rows], np.float64)
    return float(values.mean()), float(values.std(ddof=1)) if len(values) > 1 else 0.0


def _table(group: Sequence[Row], references: Sequence[Row]) -> Table:
    steps = sorted({row["steps"] for row in group})
    models = list(dict.fromkeys(row["reference"] for row in references))
    metrics = list(dict.fromkeys(row["metric"] for row in group))
    body = []
    for metric in metrics:
        of_metric = [row for row in group if row["metric"] == metric]
        at = {n: [row for row in of_metric if row["steps"] == n] for n in steps}
        floors = [row["floor"] for row in of_metric if row["floor"] is not None]
        cells = [mean_and_spread(at[n]) for n in steps]
        others = [[r for r in references if (r["metric"], r["reference"]) == (metric, m)] for m in models]
        floor = number(float(np.mean(floors))) if floors else ""
        body.append([f"{metric} {ARROWS[of_metric[0]['better']]}", *cells, floor, *map(mean_and_spread, others)])
        expected = [at[n][0]["expected"] if at[n] else None for n in steps]
        if any(value is not None for value in expected):
            body.append([EXPECTED, *("" if v is None else number(v) for v in expected), *[""] * (1 + len(models))])
    calls = {row["steps"]: row["nfe"] for row in group}
    body.append(["evaluations", *(str(calls[n]) for n in steps), *[""] * (1 + len(models))])
    return Table(SEPARATOR.join(phrases(group)), note(group), ["steps", *map(str, steps), "floor", *models], body)


ARROWS = {"lower": "↓", "higher": "↑", "one": "→1"}
EXPECTED = "  expected"
SEPARATOR = " · "


def mean_and_spread(rows: Sequence[Row]) -> str:
    """Mean and standard deviation over the rows as text; "" of none."""
    if not rows:
        return ""
    mean, deviation = spread(rows)
    return number(mean) if len(rows) == 1 else f"{number(mean)} ±{deviation:.1g}"


def number(value: float) -> str:
    """Three significant digits, and no exponent where a plain number is short."""
    return f"{value:.3g}" if not 1e3 <= abs(value) < 1e6 else f"{value:,.0f}"
