"""`--mode=compare`: evaluated runs side by side on one page: quality against network evaluations, what training took,
and pictures from the same noise.

Runs of one config that differ in their seed are one line, with the mean over them and its standard deviation.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from flax import linen as nn

from flowmaps import (
    evaluate,
    experiment,
    generate,
    measurements,
    networks,
    plots,
    report,
    sample,
    stages,
    trained,
)
from flowmaps import workdir as runs
from flowmaps.errors import MissingError, UsageError
from flowmaps.experiment import Experiment
from flowmaps.files import write_whole
from flowmaps.generate import Generated
from flowmaps.measurements import SEPARATOR, Row, Table
from flowmaps.types import Array, Cond, Params

SEED = 0
"""Of the noise of the pictures."""
AGREE = {
    "dataset": ("data set", "compare runs on one"),
    "data": ("fingerprint of the data", "train and evaluate all on the same"),
}
"""What all measurements have in common: the field, its name, and what to do where it differs."""
AGREE_ON_METRIC = {
    "against": ("reference", "hold all against the same by --config.eval.reference"),
    "num_samples": ("number of samples", "evaluate all with the same --config.eval.num_samples"),
    "sampled": ("choice of sampling seeds", "evaluate all with the same --config.eval.seeds"),
}
"""What those of one metric have in common beside."""


class Run(NamedTuple):
    """An evaluated run."""

    workdir: Path
    exp: Experiment
    step: int
    """Of the newest checkpoint."""
    rows: list[Row]
    """What its own sampler reached at the newest checkpoint, or in stages at the end of each step count's own: for each
    metric and step count the mean over the seeds of sampling, which are in `sampled`; `seed` is that of training."""


class Cost(NamedTuple):
    """What training took, up to the checkpoint that was measured."""

    parameters: int
    """Of the student."""
    steps: int
    batch_size: int
    passes_per_row: float
    """Forward passes of the student that a step costs, for each row of its batch."""
    passes: float
    """In all: that x the rows of a batch x steps."""
    minutes: float
    """The mean over seeds; nan where a run logged no speed."""


class Line(NamedTuple):
    """Runs that differ in their seeds alone."""

    label: str
    runs: list[Run]
    rows: list[Row]
    """Of all of them."""
    cost: Cost


def run(workdirs: Sequence[str | Path], output: str | Path) -> dict[str, Any]:
    """Writes output/report.html of the runs in `workdirs`, and returns what the program prints as its last line.

    Raises:
      UsageError: measurements that do not belong in one table, two runs of one config and seed, a run that was trained
        on since it was evaluated, or an `output` that is itself a run; nothing has been written then.
      MissingError: a workdir without a run, a checkpoint or measurements of its own sampler, or data missing.
    """
    path = Path(output) / "report.html"
    if (path.parent / "config.json").exists():
        raise UsageError(f"--output={output} is the workdir of a run: give another folder")
    found = [read(Path(workdir)) for workdir in workdirs]
    check_agreement(found)
    compared = lines(found)
    document = page(compared)
    if jax.process_index() == 0:
        write_whole(path, document)
    for table in (*quality_tables(compared), training_table(compared)):
        logging.info("\n%s", measurements.as_text(table))
    return {"mode": "compare", "lines": [summary(line) for line in compared], "report": str(path)}


def read(workdir: Path) -> Run:
    """The run in a workdir. Its experiment is on one device and in whole batches, so that its work is counted whole.

    Raises MissingError where there is no run, checkpoint or measurement, UsageError where it was trained on since.
    """
    config = trained.read(workdir, "workdir")
    config.mesh.update(data=1, fsdp=1)
    config.train.accumulate = 1
    everything = measurements.read(workdir / "eval" / "measurements.jsonl")
    if not everything:
        raise MissingError(f"{workdir} was never evaluated: run its command again with --mode=eval")
    newest = runs.newest_step(workdir)
    if newest == 0:
        raise MissingError(f"no checkpoint in {workdir}: pictures from the same noise need one")
    exp = experiment.build(config)
    rows = [row for row in everything if is_own(exp, row)]
    if not rows:
        raise MissingError(f"{workdir} was never evaluated by its own sampler: run its command again with --mode=eval")
    measured = max(row["checkpoint"] for row in rows)
    if not any(row["checkpoint"] == stages.checkpoint_of(exp.method, row["steps"], newest) for row in rows):
        raise UsageError(
            f"{workdir} was trained to step {newest} and evaluated at step {measured}: run its command again with "
            "--mode=eval"
        )
    own = [row for row in rows if row["checkpoint"] == stages.checkpoint_of(exp.method, row["steps"], newest)]
    return Run(workdir, exp, newest, merged(own, config.seed))


def is_own(exp: Experiment, row: Row) -> bool:
    """Whether a measurement is of samples by the run's own sampler, grid, guidance and first average."""
    own = {
        "sampler": generate.description(generate.make_sampler(exp)),
        **generate.guidance(exp),
        "ema": evaluate.decays(exp)[0],
        "reference": None,
    }
    if any(row.get(field) != value for field, value in own.items()):
        return False
    grid = generate.time_grid(exp, row["steps"])
    return len(grid) == len(row["grid"]) and np.allclose(grid, row["grid"])


def merged(rows: Sequence[Row], seed: int) -> list[Row]:
    """One row for each metric and step count, of the measurements that took the most samples: the mean over the seeds
    of sampling, as a row of the training `seed`. What was expected of the run alone is left out."""
    found: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        found.setdefault((row["metric"], row["steps"]), []).append(row)
    means = []
    for same in found.values():
        most = max(row["num_samples"] for row in same)
        latest = {row["seed"]: row for row in same if row["num_samples"] == most}
        value = evaluate.finite(measurements.spread(list(latest.values()))[0])
        means.append({**same[-1], "num_samples": most, "value": value, "seed": seed, "expected": None})
        means[-1]["sampled"] = sorted(latest)
    return means


def check_agreement(found: Sequence[Run]) -> None:
    """Raises UsageError where two measurements do not belong in one table."""
    rows = [(run.workdir, row) for run in found for row in run.rows]
    check_same(rows, AGREE)
    for metric in dict.fromkeys(row["metric"] for _, row in rows):
        of_metric = [(workdir, row) for workdir, row in rows if row["metric"] == metric]
        check_same(of_metric, {field: (f"{name} of {metric}", do) for field, (name, do) in AGREE_ON_METRIC.items()})


def check_same(rows: Sequence[tuple[Path, Row]], fields: Mapping[str, tuple[str, str]]) -> None:
    """Raises UsageError where the rows of two workdirs differ in one of the fields, which have a name and an advice."""
    first, expected = rows[0]
    for field, (name, advice) in fields.items():
        for workdir, row in rows:
            if row.get(field) != expected.get(field):
                found, wanted = row.get(field), expected.get(field)
                raise UsageError(f"{workdir} has another {name} than {first}, {found} and not {wanted}: {advice}")


def lines(found: Sequence[Run]) -> list[Line]:
    """The runs by what they have in common, under the name of the first without its "_seedN", or under its whole path
    where two lines have one name. Raises UsageError where two runs have a seed in common as well."""
    groups: dict[str, list[Run]] = {}
    for run in found:
        groups.setdefault(common(run), []).append(run)
    for same in groups.values():
        check_seeds(same)
    firsts = [same[0].workdir for same in groups.values()]
    names = [workdir.resolve().name.partition("_seed")[0] for workdir in firsts]
    labels = names if len(set(names)) == len(names) else map(str, firsts)
    return [
        Line(label, same, [row for run in same for row in run.rows], cost(same))
        for label, same in zip(labels, groups.values(), strict=True)
    ]


def common(run: Run) -> str:
    """The config without its seed, and the step that was measured."""
    config = {name: value for name, value in runs.plain(run.exp.config).items() if name != "seed"}
    return json.dumps([config, run.step], sort_keys=True)


def check_seeds(same: Sequence[Run]) -> None:
    """Raises UsageError where a seed comes twice among the runs of a line: no deviation is over them."""
    seen: dict[int, Path] = {}
    for run in same:
        other = seen.setdefault(run.exp.config.seed, run.workdir)
        if other is not run.workdir:
            raise UsageError(f"{other} and {run.workdir} are runs of one config and seed: leave one of them out")


def cost(same: Sequence[Run]) -> Cost:
    """What each of the runs of a line took to train."""
    exp, steps = same[0].exp, same[0].step
    student = experiment.abstract_state(exp).params["student"]
    batch_size, per_row = exp.config.train.batch_size, passes_per_row(exp)
    logs = [report.read_lines(run.workdir / "metrics.jsonl") for run in same]
    minutes = [report.minutes([record for record in log if record["step"] <= steps]) for log in logs]
    return Cost(
        parameters=sum(math.prod(p.shape) for p in jax.tree.leaves(student)),
        steps=steps,
        batch_size=batch_size,
        passes_per_row=per_row,
        passes=per_row * batch_size * steps,
        minutes=float(np.mean(minutes)),
    )


def passes_per_row(exp: Experiment) -> float:
    """The floating-point operations of a training step over those of a forward pass of the student on its batch; of
    several players each counts by its period.

    Both are counted in the programs as they were traced, before a compiler for some device has had them. A loop counts
    once, but for a network's own, which is written out, and what the host computes not at all.
    """
    exp = exp._replace(networks={role: written_out(network) for role, network in exp.networks.items()})
    batch = experiment.abstract_batch(exp)
    time = jax.ShapeDtypeStruct(batch["x1"].shape[:1], jnp.float32)
    cond = {name: part for name, part in batch.items() if name == "label"}

    def forward(params: Params, x: Array, s: Array, t: Array, cond: Cond) -> Array:
        return networks.bind(exp.networks["student"], params)(x, s, t, cond)

    def turn(player: str) -> float:
        method = exp.method._replace(losses={player: exp.method.losses[player]}, periods={})
        alone = exp._replace(method=method, optimizers={player: exp.optimizers[player]})
        step = experiment.train_step(alone).lower(experiment.abstract_state(alone), batch)
        return flops(step) / exp.method.periods.get(player, 1)

    student = experiment.abstract_state(exp).params["student"]
    once = flops(jax.jit(forward).lower(student, batch["x1"], time, time, cond))
    return sum(map(turn, exp.method.losses)) / once


def written_out(network: nn.Module) -> nn.Module:
    """The same network without a scan of its blocks."""
    return network.clone(scan=False) if getattr(network, "scan", False) else network


def flops(program: jax.stages.Lowered) -> float:
    """The floating-point operations of a program."""
    return program.cost_analysis()["flops"]


def summary(line: Line) -> dict[str, Any]:
    """A line as JSON: its runs, their cost, and "METRIC/STEPS" -> the mean over seeds."""
    found: dict[str, list[Row]] = {}
    for row in line.rows:
        found.setdefault(f"{row['metric']}/{row['steps']}", []).append(row)
    values = {name: evaluate.finite(measurements.spread(rows)[0]) for name, rows in found.items()}
    cost = {**line.cost._asdict(), "minutes": evaluate.finite(line.cost.minutes)}
    return {"label": line.label, "workdirs": [str(run.workdir) for run in line.runs], **cost, "measurements": values}


def page(compared: Sequence[Line]) -> str:
    """The whole document."""
    first = compared[0].rows[0]
    count = sum(len(line.runs) for line in compared)
    plot = plots.qualities([(line.label, line.rows) for line in compared], "nfe")
    caption = "Mean over seeds, with one standard deviation. Dashed: the floor, which exact or real samples reach."
    configs = (report.folded(line.label, runs.plain(line.runs[0].exp.config)) for line in compared)
    sections = [
        report.section(
            "Quality against network evaluations",
            report.picture(plot, "Quality", caption) + "".join(map(report.table, quality_tables(compared))),
        ),
        report.section("Training", report.table(training_table(compared))),
        report.section("Samples from the same noise", pictures(compared)),
        report.section("Configs", "".join(configs)),
    ]
    lead = f"{plots.counted(count, 'run')} on {first['dataset']}{SEPARATOR}data {first['data']}"
    return report.document("Comparison", lead, sections)


def quality_tables(compared: Sequence[Line]) -> list[Table]:
    """A table a metric."""
    metrics = dict.fromkeys(row["metric"] for line in compared for row in line.rows)
    return [quality_table({line.label: of_metric(line, metric) for line in compared}) for metric in metrics]


def of_metric(line: Line, metric: str) -> list[Row]:
    """The line's measurements of a metric."""
    return [row for row in line.rows if row["metric"] == metric]


def quality_table(lines: Mapping[str, Sequence[Row]]) -> Table:
    """A row a line, a column a number of evaluations: mean and standard deviation over seeds of one metric."""
    points = {label: dict(measurements.points(rows, "nfe")) for label, rows in lines.items()}
    counts = sorted({nfe for at in points.values() for nfe in at})
    body = [[label, *(measurements.mean_and_spread(at.get(n, ())) for n in counts)] for label, at in points.items()]
    rows = [row for same in lines.values() for row in same]
    floors = [row["floor"] for row in rows if row["floor"] is not None]
    floor = [f"floor {measurements.number(float(np.mean(floors)))}"] if floors else []
    title = f"{rows[0]['metric']} {measurements.ARROWS[rows[0]['better']]}"
    return Table(title, SEPARATOR.join([measurements.note(rows), *floor]), ["evaluations", *map(str, counts)], body)


def training_table(compared: Sequence[Line]) -> Table:
    """A row a line: what training took."""
    header = ["", "parameters", "steps", "batch", "passes a row", "passes, millions", "minutes", "seeds"]
    body = []
    for line in compared:
        cost, seeds = line.cost, sorted(run.exp.config.seed for run in line.runs)
        counts = [f"{n:,}" for n in (cost.parameters, cost.steps, cost.batch_size)]
        minutes = "" if math.isnan(cost.minutes) else measurements.number(cost.minutes)
        passes = [f"{cost.passes_per_row:.2f}", measurements.number(cost.passes / 1e6)]
        body.append([line.label, *counts, *passes, minutes, ", ".join(map(str, seeds))])
    note = (
        "A pass: the floating-point operations of a run's own network forward on one row. Minutes: as each run logged."
    )
    return Table("Cost of training", note, header, body)


def pictures(compared: Sequence[Line]) -> str:
    """A picture for each step count that all runs sample with, from the same standard normal draws and labels: a row
    or panel for the first run of each line, and the data."""
    exps = [line.runs[0].exp for line in compared]
    shared = sorted(set.intersection(*(trained_counts(line.runs[0]) for line in compared)))
    if not shared:
        logging.warning("no pictures: there is no number of steps that all runs have in config.sample.steps")
    plane = exps[0].dataset.kind == "plane"
    count = min(exp.config.sample.num_samples if plane else sample.columns(exp) for exp in exps)
    made = {line.label: draw(line.runs[0], shared, count) for line in compared}
    side_by_side = planes if plane else images
    drawn = {n: side_by_side(exps[0], {label: at[n] for label, at in made.items()}) for n in shared}
    return "".join(report.picture(png, f"{plots.caption(n)}", plots.caption(n)) for n, png in drawn.items())


def trained_counts(run: Run) -> set[int]:
    """The numbers of steps of config.sample for which the run has a student."""
    counts = run.exp.config.sample.steps
    return {count for count in counts if stages.checkpoint_of(run.exp.method, count, run.step) is not None}


def draw(run: Run, step_counts: Sequence[int], count: int) -> dict[int, Generated]:
    """The first samples at each step count, by the run's own sampler and first average."""
    exp = experiment.build(run.exp.config, training=False)
    program = generate.program(exp, batch_size=min(count, exp.config.eval.batch_size))
    params = sample.parameters(exp, run.workdir)
    return {
        steps: generate.samples(exp, program, params[steps], steps=steps, seed=SEED, num_samples=count)
        for steps in step_counts
    }


def planes(exp: Experiment, made: Mapping[str, Generated]) -> bytes:
    """Densities beside that of the data."""
    points = {label: samples.x for label, samples in made.items()}
    count = max(map(len, points.values()))
    return plots.density(points, sample.held_out(exp, count), exp.dataset.log_density)


def images(exp: Experiment, made: Mapping[str, Generated]) -> bytes:
    """Rows of images above real ones of the same labels."""
    first = next(iter(made.values()))
    rows, show = {label: samples.x for label, samples in made.items()}, sample.shown(exp)
    rows["real"] = sample.real_like(exp, first.labels, len(first.x))
    return plots.image_grid({label: show(x) for label, x in rows.items()})
