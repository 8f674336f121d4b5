"""report.html: a run on one page that opens offline, its pictures inlined, made of what lies in the workdir."""

import base64
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import jax
import numpy as np

from flowmaps import measurements, plots
from flowmaps.errors import MissingError
from flowmaps.files import write_whole
from flowmaps.measurements import Row, Table

BOOKKEEPING = ("step", "skipped", "steps_per_second", "examples_per_second", "seconds")
"""Scalars of training, of any player, that get no curve."""
MEASURED = "eval/"
"""Begins the names "eval/METRIC/STEPS" of quality measured during training."""
LAST = ("grad_norm", "learning_rate")
"""Curves, of any player, that come after those of the losses and their terms."""
CAPTIONS = {
    "grid.png": "The same noise at every number of steps.",
    "interpolations.png": "Latents of two held-out images and of the arc between, decoded; the images at the ends.",
    "trajectories.png": "The way of each sample, from noise (grey) to where it ends (orange).",
}
"""Pictures of workdir/samples, in their order on the page."""


def write(workdir: str | Path) -> Path:
    """Writes workdir/report.html and returns its path. What the run has not made yet is left out.

    Raises MissingError where the workdir holds no run.
    """
    workdir = Path(workdir)
    if not (workdir / "config.json").is_file():
        raise MissingError(f"no run in {workdir}: train one with --mode=train --workdir={workdir}")
    write_whole(workdir / "report.html", page(workdir))
    return workdir / "report.html"


def refresh(workdir: str | Path) -> dict[str, str]:
    """{"report": path} of the page made anew, by the first process; {} where checkpoints alone were put there."""
    workdir = Path(workdir)
    if not (workdir / "config.json").is_file():
        return {}
    if jax.process_index() == 0:
        write(workdir)
    return {"report": str(workdir / "report.html")}


def page(workdir: Path) -> str:
    """The whole document."""
    config = json.loads((workdir / "config.json").read_text())
    environment = read_json(workdir / "environment.json")
    rows = newest_first(measurements.read(workdir / "eval" / "measurements.jsonl"))
    records = read_lines(workdir / "metrics.jsonl")
    name = workdir.resolve().name
    sections = [
        section("Quality against steps", quality(rows)),
        section("Samples", samples(workdir / "samples")),
        section("Training", training(records)),
        section("Particulars", folded("Config", config) + folded("Environment", environment)),
    ]
    return document(name, lead(config, environment, records), sections, tiles=tiles(rows))


def document(title: str, lead: str, sections: Iterable[str], *, tiles: str = "") -> str:
    """A page of its sections, with nothing outside of it."""
    return TEMPLATE.format(
        title=escape(title), style=STYLE, lead=escape(lead), tiles=tiles, sections="\n".join(sections)
    )


def lead(config: Mapping[str, Any], environment: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> str:
    """Method, data, length and machine in one line."""
    steps = records[-1]["step"] if records else 0
    device = environment.get("device_kind", "")
    devices = environment.get("devices", 1)
    parts = [
        f"{config['method']['name']} on {config['data']['name']}",
        f"{steps:,} of {config['train']['steps']:,} steps",
        f"batch {config['train']['batch_size']:,}",
        f"{devices} x {device}" if devices > 1 else device,
        *(f"{p} {v}" for p, v in environment.get("versions", {}).items() if p in ("jax", "python")),
    ]
    return measurements.SEPARATOR.join(filter(None, parts))


def newest_first(rows: Iterable[Row]) -> list[Row]:
    """Measurements of later checkpoints before those of earlier ones."""
    return sorted(rows, key=lambda row: -(row["checkpoint"] or 0))


def tiles(rows: Sequence[Row]) -> str:
    """The first metric of the newest checkpoint in large figures: at the fewest and the most steps, and its floor."""
    measured = [row for row in rows if row["reference"] is None]
    if not measured:
        return ""
    group = [row for row in measurements.groups(measured)[0] if row["metric"] == measured[0]["metric"]]
    steps = sorted({row["steps"] for row in group})
    shown = {
        plots.caption(n): measurements.spread([row for row in group if row["steps"] == n])[0]
        for n in (steps[0], steps[-1])
    }
    floors = [row["floor"] for row in group if row["floor"] is not None]
    if floors:
        shown["floor"] = sum(floors) / len(floors)
    name = group[0]["metric"]
    cells = (
        f'<div class="tile"><b>{measurements.number(value)}</b><span>{escape(name)}, {escape(label)}</span></div>'
        for label, value in shown.items()
    )
    return f'<div class="tiles">{"".join(cells)}</div>'


def quality(rows: Sequence[Row]) -> str:
    """The plot and the tables."""
    if not rows:
        return ""
    caption = "Dashed: the floor, which exact or real samples reach."
    if len({row["seed"] for row in rows}) > 1:
        caption = f"Mean over seeds, with one standard deviation. {caption}"
    if any(row["expected"] is not None for row in rows):
        caption = f"{caption} Rings: what this config is expected to reach."
    return picture(plots.quality(rows), "Quality against steps", caption) + "".join(
        table(t) for t in measurements.tables(rows)
    )


def table(made: Table) -> str:
    """A table of measurements."""
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in made.header)
    body = "".join(_line(line) for line in made.body)
    return (
        f'<div class="table"><table><caption>{escape(made.title)}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
        f'<p class="note">{escape(made.note)}</p></div>'
    )


def _line(cells: Sequence[str]) -> str:
    first, *rest = cells
    kind = "" if first.strip() not in ("expected", "evaluations") else ' class="quiet"'
    values = "".join(f"<td>{escape(cell)}</td>" for cell in rest)
    return f'<tr{kind}><th scope="row">{escape(first)}</th>{values}</tr>'


def minutes(records: Sequence[Mapping[str, Any]]) -> float:
    """Minutes of training up to the last of the records, from the speeds between them; nan without any."""
    points = [(record["step"], record["steps_per_second"]) for record in records if record.get("steps_per_second")]
    if not points:
        return math.nan
    taken = np.diff([step for step, _ in points], prepend=0)
    return float(np.sum(taken / [speed for _, speed in points])) / 60


def samples(directory: Path) -> str:
    """The pictures that sampling has left."""
    found = {name: directory / name for name in CAPTIONS if (directory / name).is_file()}
    return "".join(picture(path.read_bytes(), path.stem, CAPTIONS[name]) for name, path in found.items())


def training(records: Sequence[Mapping[str, Any]]) -> str:
    """Curves of the loss, its terms and what else training logged, and of the quality where it was measured."""
    names = [n for n in dict.fromkeys(n for record in records for n in record) if n.split("/")[-1] not in BOOKKEEPING]
    logged = sorted(
        (n for n in names if not n.startswith(MEASURED)), key=lambda n: (n.split("/")[-1] in LAST, n != "loss")
    )
    panels: dict[str, dict[str, str]] = {name: {"": name} for name in logged}
    for name in names:
        if name.startswith(MEASURED):
            metric, steps = name.removeprefix(MEASURED).rsplit("/", 1)
            panels.setdefault(metric, {})[plots.caption(int(steps))] = name
    return picture(plots.curves(records, panels), "Training", "") if panels else ""


def picture(png: bytes, alt: str, caption: str) -> str:
    """A picture inlined, at half its pixels so that it is sharp on fine screens."""
    width = int.from_bytes(png[16:20]) // 2
    source = base64.b64encode(png).decode()
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure><img alt="{escape(alt)}" width="{width}" src="data:image/png;base64,{source}">{below}</figure>'


def section(title: str, content: str) -> str:
    """A part of the page; nothing where it has no content."""
    return f"<section><h2>{escape(title)}</h2>{content}</section>" if content else ""


def folded(title: str, content: Mapping[str, Any]) -> str:
    """A mapping as text behind a title to click on."""
    text = "\n".join(f"{name} = {json.dumps(value)}" for name, value in flat(content))
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>" if content else ""


def flat(content: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, Any]]:
    """Dotted names and values, as the command line has them."""
    for name, value in content.items():
        if isinstance(value, Mapping) and value:
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def read_json(path: Path) -> dict[str, Any]:
    """The object in a file; an empty one where there is no file."""
    return json.loads(path.read_text()) if path.is_file() else {}


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The JSON lines of a file; a last line that is still being written is left out."""
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [json.loads(line) for line in lines]


STYLE = """
:root { color-scheme: light dark; --page: #ffffff; --ink: #1a1f2b; --quiet: #687083; --line: #e6e8ee; --card: #f6f7f9;
  --accent: #2f6bff; }
@media (prefers-color-scheme: dark) { :root { --page: #12141a; --ink: #e9ebf1; --quiet: #969eae; --line: #2a2e39;
  --card: #1a1d25; --accent: #7aa2ff; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); -webkit-font-smoothing: antialiased;
  font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif; }
main { max-width: 1024px; margin: 0 auto; padding: 72px 32px 96px; }
h1 { font-size: 40px; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 10px; font-weight: 680; }
h2 { font-size: 21px; letter-spacing: -0.01em; margin: 0 0 20px; font-weight: 640; }
.lead { color: var(--quiet); margin: 0; }
.tiles { display: flex; flex-wrap: wrap; gap: 16px; margin: 36px 0 0; }
.tile { flex: 1 1 180px; background: var(--card); border-radius: 14px; padding: 20px 24px; }
.tile b { display: block; font-size: 32px; line-height: 1.2; letter-spacing: -0.02em; font-weight: 640;
  font-variant-numeric: tabular-nums; }
.tile:first-child b { color: var(--accent); }
.tile span { color: var(--quiet); font-size: 14px; }
section { margin-top: 64px; }
figure { margin: 0 0 28px; }
img { display: block; max-width: 100%; height: auto; }
figcaption, .note { color: var(--quiet); font-size: 14px; margin: 10px 0 0; }
.table { overflow-x: auto; margin: 36px 0 0; }
table { border-collapse: collapse; width: 100%; font-size: 15px; font-variant-numeric: tabular-nums; }
caption { text-align: left; font-weight: 600; padding-bottom: 8px; }
th, td { padding: 9px 12px; text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap;
  font-weight: 400; }
th:first-child { text-align: left; padding-left: 0; }
thead th { color: var(--quiet); font-size: 13px; }
tbody th { font-weight: 550; }
tr.quiet th, tr.quiet td { color: var(--quiet); font-weight: 400; font-size: 14px; }
details { border-top: 1px solid var(--line); padding: 14px 0; }
summary { cursor: pointer; font-weight: 550; }
pre { overflow-x: auto; background: var(--card); border-radius: 12px; padding: 20px 24px; margin: 14px 0 0;
  font: 13px/1.65 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
@media print { main { padding: 0; } section { break-inside: avoid; } }
"""

TEMPLATE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<header>
<h1>{title}</h1>
<p class="lead">{lead}</p>
{tiles}
</header>
{sections}
</main>
</body>
</html>
"""
