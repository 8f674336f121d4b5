"""Pictures, as the bytes of PNG files: curves, densities and trajectories on the plane, grids of images.

Grounds are transparent and inks in the middle of the scale, so that a picture reads on a light and on a dark page.
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, UInt8

from flowmaps import measurements
from flowmaps.measurements import Cost, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK = "#7b8494"
FAINT = "#7b849440"
COLOURS = ("#3d7eff", "#f0803c", "#1fa67a", "#b061e8", "#e5484d", "#c49a1a")
MARKS = ("o-", "s--", "^:")
"""Of curves whose colours come again."""
AXES = {"steps": "steps", "nfe": "network evaluations"}
STYLE = {
    "font.size": 9.5,
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "ytick.minor.size": 0,
    "text.color": INK,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}
WIDTH = 9.6
"""Inches; at 200 dots an inch twice the width of a page, sharp on a fine screen."""
DPI = 200
COLUMNS = 3
LINE = 0.2
"""Inches of a legend's line."""
ROOM = 1.3
"""Ratio of two neighbouring numbers of an axis, at least."""


def quality(rows: Sequence[Row]) -> bytes:
    """Each metric against the number of steps, a curve for each checkpoint, average, sampler and guidance."""
    groups = measurements.groups(row for row in rows if row["reference"] is None)
    return qualities(list(zip(measurements.labels(groups), groups, strict=True)), "steps")


def qualities(lines: Sequence[tuple[str, Sequence[Row]]], cost: Cost) -> bytes:
    """Each metric against steps or evaluations, a curve for each of `lines`, which are a label and measurements: mean
    over seeds with a band of one standard deviation; dashed: the floor; rings: expected numbers."""
    metrics = list(dict.fromkeys(row["metric"] for _, rows in lines for row in rows))
    with panels(len(metrics)) as (figure, axes):
        for axis, metric in zip(axes, metrics, strict=True):
            curves = [(label, [row for row in rows if row["metric"] == metric]) for label, rows in lines]
            for number, (label, rows) in enumerate(curves):
                if rows:
                    _curve(axis, measurements.points(rows, cost), number, label)
            _finish_quality(axis, metric, [row for _, rows in curves for row in rows], cost)
        if len(lines) > 1:
            each = [axis.get_legend_handles_labels() for axis in axes]
            found = {label: handle for handles, labels in each for handle, label in zip(handles, labels, strict=True)}
            columns = 2 if len(lines) > 3 else 1
            figure.set_figheight(figure.get_figheight() + LINE * -(-len(found) // columns))
            figure.legend(found.values(), found.keys(), loc="outside lower left", ncols=columns)
        return png(figure)


TRADE_OFF = ("fid", "inception_score")
"""The beginnings of the names of the two metrics between which guidance chooses."""


def guidance(rows: Sequence[Row]) -> bytes:
    """Each metric against the scale of guidance, a curve for each number of steps, and where both are there the Frechet
    distance against the Inception Score, from scale to scale: of the newest checkpoint's latest protocol, mean over
    seeds."""
    newest = max(row["checkpoint"] for row in rows if row["checkpoint"] is not None)
    mine = [row for row in rows if row["checkpoint"] == newest and row["guidance"] is not None]
    alike = [name for name in measurements.GROUP if name != "guidance"]
    same = [row for row in mine if all(row.get(name) == mine[-1].get(name) for name in alike)]
    metrics, steps = (list(dict.fromkeys(row[name] for row in same)) for name in ("metric", "steps"))

    def means(metric: str, count: int) -> list[float]:
        at = ([r for r in same if (r["metric"], r["steps"], r["guidance"]) == (metric, count, w)] for w in scales)
        return [measurements.spread(found)[0] if found else math.nan for found in at]

    scales = measurements.scales(same)
    pair = [next((metric for metric in metrics if metric.startswith(name)), None) for name in TRADE_OFF]
    with panels(len(metrics) + (None not in pair)) as (figure, axes):
        for axis, metric in zip(axes, metrics, strict=False):
            for number, count in enumerate(steps):
                marks, colour = _line(number)
                axis.plot(scales, means(metric, count), marks, color=colour, markersize=4, label=caption(count))
            better = next(row["better"] for row in same if row["metric"] == metric)
            axis.set_title(f"{metric} {measurements.ARROWS[better]}", loc="left")
            axis.set_xlabel("scale of guidance")
        if None not in pair:
            for number, count in enumerate(steps):
                marks, colour = _line(number)
                axes[-1].plot(means(pair[1], count), means(pair[0], count), marks, color=colour, markersize=4)
            axes[-1].set_title(pair[0], loc="left")
            axes[-1].set_xlabel(pair[1])
        figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower left", ncols=4)
        return png(figure)


def _line(number: int) -> tuple[str, str]:
    """The mark and the colour of a curve."""
    return MARKS[number // len(COLOURS) % len(MARKS)], COLOURS[number % len(COLOURS)]


def _curve(axis: "Axes", points: Sequence[tuple[int, Sequence[Row]]], number: int, label: str) -> None:
    costs = [cost for cost, _ in points]
    mean, deviation = np.transpose([measurements.spread(rows) for _, rows in points])
    marks, colour = _line(number)
    axis.plot(costs, mean, marks, color=colour, markersize=4, label=label)
    if deviation.any():
        axis.fill_between(costs, mean - deviation, mean + deviation, color=colour, alpha=0.18, linewidth=0)


def _finish_quality(axis: "Axes", metric: str, rows: Sequence[Row], cost: Cost) -> None:
    ticks = _apart(sorted({row[cost] for row in rows}))
    most = max(row["num_samples"] for row in rows)
    floors = [row["floor"] for row in rows if row["floor"] is not None and row["num_samples"] == most]
    expected = {row[cost]: row["expected"] for row in rows if row["expected"] is not None}
    shown = [*(row["value"] for row in rows if row["value"] is not None), *floors, *expected.values()]
    if floors:
        axis.axhline(np.mean(floors), color=INK, linestyle=(0, (4, 3)), linewidth=1.2)
    axis.plot(list(expected), list(expected.values()), "o", markersize=8, markerfacecolor="none", markeredgecolor=INK)
    axis.set_xscale("log", base=2)
    axis.set_xticks(ticks, [str(n) for n in ticks])
    axis.minorticks_off()
    if rows[0]["better"] == "lower" and shown and min(shown) > 0 and max(shown) > 4 * min(shown):
        _log_scale(axis, min(shown), max(shown))
    axis.set_title(f"{metric} {measurements.ARROWS[rows[0]['better']]}", loc="left")
    axis.set_xlabel(AXES[cost])


def _apart(costs: Sequence[int]) -> list[int]:
    """Those of ascending costs between which there is room for their numbers."""
    shown = [costs[0]]
    for cost in costs:
        if cost >= ROOM * shown[-1]:
            shown.append(cost)
    return shown


def _log_scale(axis: "Axes", low: float, high: float) -> None:
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    axis.set_yscale("log")
    axis.set_ylim(low / 1.3, high * 1.3)
    digits = (1.0, 2.0, 5.0) if high < 300 * low else (1.0,)
    axis.yaxis.set_major_locator(LogLocator(subs=digits))
    axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axis.yaxis.set_minor_formatter(NullFormatter())


def curves(records: Sequence[Mapping[str, float | int | None]], panels_: Mapping[str, Mapping[str, str]]) -> bytes:
    """Scalars of records {"step", name: value, ...} against the step; what is not a number is left out.

    `panels_`: title of a panel -> label of each of its curves -> name of the scalar.
    """
    with panels(len(panels_)) as (figure, axes):
        for axis, (title, names) in zip(axes, panels_.items(), strict=True):
            series = {label: _series(records, name) for label, name in names.items()}
            for number, (label, (steps, values)) in enumerate(series.items()):
                axis.plot(steps, values, color=COLOURS[number % len(COLOURS)], linewidth=1.4, label=label)
            everything = np.concatenate([values for _, values in series.values()])
            if len(everything) and everything.min() > 0 and 4 < everything.max() / everything.min() < 1e5:
                _log_scale(axis, everything.min(), everything.max())
            axis.set_title(title, loc="left")
            axis.set_xlabel("step")
            axis.xaxis.set_major_formatter(_thousands)
            if len(names) > 1:
                axis.legend(fontsize=8, ncols=2)
        return png(figure)


def _series(
    records: Sequence[Mapping[str, float | int | None]], name: str
) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    points = [(record["step"], record[name]) for record in records if _finite(record.get(name))]
    steps, values = np.array(points, np.float64).reshape(-1, 2).T
    return steps, values


def density(
    samples: Mapping[str, Float[np.ndarray, "n 2"]],
    exact: Float[np.ndarray, "m 2"],
    log_density: Callable[[np.ndarray], np.ndarray] | None = None,
) -> bytes:
    """Where samples lie: a panel under each title, and last the law itself, all in one scale of colour.

    The law is drawn from its density, or from the exact samples where it has none. Below 2,000 samples: dots.
    """
    reach = 1.12 * float(np.abs(exact).max())
    fewest = min(map(len, samples.values()))
    bins = int(np.clip(math.sqrt(fewest / 8), 20, 100))
    edges = np.linspace(-reach, reach, bins + 1)
    fine = np.linspace(-reach, reach, 4 * bins + 1)
    law = _on_grid(log_density, fine) if log_density else _histogram(exact, edges)
    brightest = 1.25 * float(np.quantile(law[law > 0], 0.95))
    with panels(len(samples) + 1, square=True) as (figure, axes):
        for axis, (title, x) in zip(axes, samples.items(), strict=False):
            if fewest < 2_000:
                _dots(axis, x)
            else:
                _heat(axis, _histogram(x, edges), reach, brightest)
            _bare(axis, title, reach)
        _heat(axes[-1], law, reach, brightest)
        _bare(axes[-1], "exact" if log_density else "data", reach)
        return png(figure)


def trajectories(paths: Mapping[int, Float[np.ndarray, "_ n 2"]]) -> bytes:
    """Samples on their way from noise (dots of ink) to where they end, a panel for each step count."""
    reach = 1.1 * max(float(np.quantile(np.abs(x[np.isfinite(x)]), 0.999)) for x in paths.values())
    with panels(len(paths), square=True) as (figure, axes):
        from matplotlib.collections import LineCollection

        for axis, (steps, x) in zip(axes, paths.items(), strict=True):
            lines = LineCollection(x.swapaxes(0, 1), colors=COLOURS[0], linewidths=0.6, alpha=0.4)
            axis.add_collection(lines)
            axis.plot(*x[0].T, ".", color=INK, markersize=1.6, markeredgewidth=0)
            axis.plot(*x[-1].T, ".", color=COLOURS[1], markersize=3.2, markeredgewidth=0)
            _bare(axis, caption(steps), reach)
        return png(figure)


def image_grid(rows: Mapping[str, UInt8[np.ndarray, "_ h w c"]], *, tile: int = 96, gap: int = 8) -> bytes:
    """Captioned rows of images with separators between them; small images grow by a whole factor to about `tile`."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size=28)
    margin = round(max(font.getlength(f"{caption}  ") for caption in rows)) if any(rows) else 0
    height, width, _ = next(iter(rows.values())).shape[1:]
    zoom = max(1, round(tile / width))
    across, down = width * zoom + gap, height * zoom + gap
    columns = max(map(len, rows.values()))
    canvas = Image.new("RGBA", (margin + columns * across - gap, len(rows) * down - gap))
    draw = ImageDraw.Draw(canvas)
    for r, (caption, images) in enumerate(rows.items()):
        draw.text((0, r * down + height * zoom / 2), caption, INK, font, anchor="lm")
        for c, pixels in enumerate(images):
            picture = Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
            picture = picture.resize((width * zoom, height * zoom), Image.Resampling.NEAREST)
            canvas.paste(picture, (margin + c * across, r * down))
    file = io.BytesIO()
    canvas.save(file, "PNG", optimize=True)
    return file.getvalue()


def caption(steps: int) -> str:
    """A number of steps in words."""
    return counted(steps, "step")


def counted(count: int, thing: str) -> str:
    """ "1 run", "2 runs"."""
    return f"1 {thing}" if count == 1 else f"{count} {thing}s"


@contextmanager
def panels(count: int, *, square: bool = False):
    """A figure and its panels, three a line, in the house's style; nothing stays open behind it."""
    import matplotlib
    from matplotlib.figure import Figure

    side = WIDTH / COLUMNS
    columns, lines = min(COLUMNS, max(count, 2)), max(-(-count // COLUMNS), 1)
    with matplotlib.rc_context(STYLE):
        size = (columns * side, lines * (side + 0.4 if square else 2.7))
        figure: Figure = Figure(size, layout="constrained")
        figure.get_layout_engine().set(h_pad=0.12, w_pad=0.06)
        axes = list(figure.subplots(lines, columns, squeeze=False).flat)
        for spare in axes[count:]:
            spare.remove()
        yield figure, axes[:count]


def png(figure: "Figure") -> bytes:
    """The bytes of the figure's PNG file, the same for the same figure."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=DPI, metadata={"Software": None})
    return file.getvalue()


def _histogram(x: Float[np.ndarray, "n 2"], edges: Float[np.ndarray, " k"]) -> Float[np.ndarray, "b b"]:
    counts = np.histogram2d(*x.T, bins=(edges, edges))[0]
    return counts / (len(x) * (edges[1] - edges[0]) ** 2)


def _on_grid(log_density: Callable, edges: Float[np.ndarray, " k"]) -> Float[np.ndarray, "b b"]:
    middles = (edges[1:] + edges[:-1]) / 2
    points = np.stack(np.meshgrid(middles, middles, indexing="ij"), axis=-1)
    return np.exp(log_density(points.reshape(-1, 2))).reshape(points.shape[:2])


def _heat(axis: "Axes", values: Float[np.ndarray, "b b"], reach: float, brightest: float) -> None:
    box = (-reach, reach, -reach, reach)
    axis.imshow(values.T, origin="lower", extent=box, vmin=0, vmax=brightest, cmap="magma", interpolation="nearest")


def _dots(axis: "Axes", x: Float[np.ndarray, "n 2"]) -> None:
    axis.plot(*x.T, ".", color=COLOURS[0], markersize=2, markeredgewidth=0, alpha=0.8)


def _bare(axis: "Axes", title: str, reach: float) -> None:
    axis.set(xlim=(-reach, reach), ylim=(-reach, reach), xticks=[], yticks=[], aspect="equal")
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.set_title(title)


def _finite(value: float | int | None) -> bool:
    return value is not None and math.isfinite(value)


def _thousands(value: float, _: int) -> str:
    return f"{value / 1000:g}k" if value >= 1000 else f"{value:g}"
