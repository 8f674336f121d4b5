"""`--mode=eval`: the quality of a trained run against its number of steps, each number with its whole protocol.

One run sweeps scales of guidance, checkpoints, averages, samplers, seeds and step counts, all from the same noise.
"""

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

import jax
from absl import logging
from ml_collections import ConfigDict

import flowmaps
from flowmaps import coding, experiment, generate, judges, measurements, metrics, plots, stages, stats
from flowmaps.checkpoints import Checkpoints
from flowmaps.errors import MissingError, UsageError
from flowmaps.experiment import Experiment
from flowmaps.files import write_whole
from flowmaps.generate import Program
from flowmaps.judges import Floor, Judge
from flowmaps.measurements import Row
from flowmaps.metrics import AnyMetric
from flowmaps.types import Params
from flowmaps.workdir import versions

RAW = -1
"""The index in config.eval.ema that stands for the weights themselves."""

UNFORESEEN = {"expected": None}
"""What config.eval.expected says of others than the checkpoint, average, sampler and guidance it was measured with."""

Averages = dict[float | None, Params]
"""Decay -> averaged student; None -> the raw one."""


class Student(NamedTuple):
    """A checkpoint that is measured."""

    step: int
    step_counts: tuple[int, ...]
    """The numbers of sampling steps that it is measured with."""
    averages: Averages


def run(config: ConfigDict, workdir: str | Path) -> list[Row]:
    """Measures the last checkpoint of `workdir`, and the best where that is another one, as config.eval says; of a run
    in stages the student of each step count's own stage.

    Adds one JSON line a measurement to eval/measurements.jsonl, makes eval/table.csv and eval/quality.png (of several
    scales of guidance also eval/guidance.png) of all that this file then holds, and logs tables of what it measured and
    returns.

    A line has: metric (of images with its number of samples, fid_50k); value, null where not finite; better, the side
    on which it is; floor (the same metric of exact or real samples) and expected (of config.eval.expected), or null;
    steps; nfe (network evaluations a sample, counted by the program that ran); sampler; grid (its times); guidance,
    guidance_interval and guidance_weak (see config.guidance); ema (decay, null for the raw weights); seed; num_samples;
    seconds (of generating them); against (the statistics and features that images are held against, in words), or null;
    checkpoint (step); config (name of the workdir); method; dataset; data (fingerprint); versions; device; reference:
    null, or the simple model whose samples were measured in their place.

    Raises:
      UsageError: an unknown metric, sampler, grid or average, a size below its least, or statistics that images cannot
        be held against; nothing is sampled then.
      MissingError: there is no checkpoint, or no weights for the metrics of images.
    """
    workdir, started = Path(workdir), time.perf_counter()
    exp = experiment.build(config, training=False)
    scaled = at_scales(exp)
    programs = [check(each) for each in scaled]
    judge, about = make_judge(exp), provenance(exp, workdir)
    rows = [
        row
        for each, made in zip(scaled, programs, strict=True)
        for row in of_scale(each, made, workdir, judge, config.guidance.scale)
    ]
    rows += [row for seed in config.eval.seeds for row in references(exp, seed)]
    rows = [{**row, **about} for row in rows]
    if rows and jax.process_index() == 0:
        write(workdir / "eval", rows)
    for table in measurements.tables(rows):
        logging.info("\n%s", measurements.as_text(table))
    if rows:
        logging.info("measured in %.0f s: %s", time.perf_counter() - started, workdir / "eval")
    else:
        logging.warning("nothing was measured: eval.metrics is empty, and no metric is set for these data")
    return rows


def at_scales(exp: Experiment) -> list[Experiment]:
    """The experiment with each of the scales of guidance that config.eval names; itself where it names none."""

    def at(scale: float) -> Experiment:
        config = exp.config.copy_and_resolve_references()
        config.guidance.scale = float(scale)
        return exp._replace(config=config)

    return [at(scale) for scale in exp.config.eval.guidance] or [exp]


def of_own_scale(config: ConfigDict, rows: Sequence[Row]) -> list[Row]:
    """The rows of config.guidance.scale, or all where others alone were measured."""
    return [row for row in rows if row["guidance"] == config.guidance.scale] or list(rows)


def of_scale(
    exp: Experiment, programs: Sequence[Program], workdir: Path, judge: Judge, own_scale: float
) -> Iterator[Row]:
    """What is measured with one scale of guidance: of each checkpoint, average, sampler and seed. Values are expected
    of the config's own scale alone."""
    chosen = exp.config.eval
    for step, counts, weights in [*students(exp, workdir), *best_of_others(exp, workdir)]:
        for decay, params in weights.items():
            which = {"ema": decay, "checkpoint": step}
            for name, program in zip(chosen.samplers, programs, strict=True):
                default = name == "default" and decay == decays(exp)[0] and exp.config.guidance.scale == own_scale
                for seed in chosen.seeds:
                    for row in measure(exp, params, program, judge, seed=seed, floors=True, step_counts=counts):
                        yield {**row, **which, **({} if default and foreseen(exp, row, step) else UNFORESEEN)}
            for seed in chosen.seeds:
                for row in of_model(exp, params, seed, judge.floor):
                    yield {**row, **which}


def foreseen(exp: Experiment, row: Row, step: int) -> bool:
    """Whether a row of the checkpoint of a step is what config.eval.expected is of."""
    return step == stages.checkpoint_of(exp.method, row["steps"], exp.config.eval.expected_at)


def check(exp: Experiment) -> list[Program]:
    """The program of each sampler of config.eval. Raises UsageError for any field of it that cannot be,
    MissingError where a file that it names is not there."""
    chosen = exp.config.eval
    for name in chosen.metrics:
        metrics.check(name, exp.dataset)
        check_source(exp, name)
    if metrics.of_features(chosen.metrics):
        stats.check(exp.config, exp.dataset)
    for steps in chosen.steps:
        generate.time_grid(exp, steps)
        check_learned(exp, "eval", steps)
    decays(exp)
    if chosen.num_samples < metrics.FEWEST:
        raise UsageError(f"eval.num_samples={chosen.num_samples}: no metric takes fewer than {metrics.FEWEST}")
    return [program(exp, name) for name in chosen.samplers]


def check_learned(exp: Experiment, section: str, steps: int) -> None:
    """Raises UsageError for a number of steps that no stage of the run trains."""
    known = [stage.generates for stage in exp.method.stages]
    if known and None not in known and steps not in known:
        raise UsageError(
            f"{section}.steps has {steps}, and the stages of this run train students of {', '.join(map(str, known))}"
        )


def check_source(exp: Experiment, name: str) -> None:
    """Raises UsageError where a metric of the model needs another source than this run's."""
    needs = getattr(metrics.load(name), "needs", "any source")
    if (needs == "gaussian source" and exp.dataset.source is not None) or (
        needs == "score" and not generate.tells_score(exp)
    ):
        raise UsageError(
            f"metric {name!r} needs a Gaussian source{' alone, independent of the data' if needs == 'score' else ''}, "
            "which this run has not: leave it out"
        )


def program(exp: Experiment, sampler: str = "default") -> Program:
    """Generation in the batches of config.eval, to be made once and given to every `measure`."""
    batch_size = min(exp.config.eval.batch_size, max(num_samples(exp), 1))
    return generate.program(exp, sampler=sampler, batch_size=batch_size)


def num_samples(exp: Experiment) -> int:
    """config.eval.num_samples, or what the most demanding metric takes where that is less."""
    most = (metrics.load(name).num_samples for name in metrics.of_samples(exp.config.eval.metrics))
    return min(exp.config.eval.num_samples, max(most, default=0))


def make_judge(exp: Experiment) -> Judge:
    """What measures samples as config.eval says: to be made once, for on images it loads a network, and looks at all
    training images where their statistics are not there."""
    if not metrics.of_features(exp.config.eval.metrics):
        return judges.of_numbers(exp.dataset)
    eyes = stats.open_eyes(exp.config, exp.mesh)
    reference = stats.reference(exp.config, exp.dataset, eyes)
    judge = judges.of_images(exp.dataset, eyes.look, reference, num_samples(exp))
    if exp.dataset.coding is None:
        return judge
    decode = coding.of_dataset(exp.dataset.coding, exp.mesh)
    return judge._replace(keep=lambda batches: judge.keep(images for x in batches for images in decode(x)))


def measure(
    exp: Experiment,
    params: Params,
    program: Program,
    judge: Judge,
    *,
    seed: int = 0,
    floors: bool = False,
    step_counts: Sequence[int] | None = None,
) -> list[Row]:
    """The metrics of config.eval at each of its step counts, or of those given, for the student's parameters `params`.

    `program` is from `evaluate.program` and `judge` from `make_judge`: training that measures again and again makes
    them once, and they compile once a step count. The rows lack what `run` knows of checkpoint and run, and without
    `floors` their floor is null.
    """
    rows = []
    chosen = metrics.of_samples(exp.config.eval.metrics)
    counts = exp.config.eval.steps if step_counts is None else step_counts
    for steps in counts if chosen else ():
        size = num_samples(exp)
        made = generate.samples(exp, program, params, steps=steps, seed=seed, num_samples=size, keep=judge.keep)
        protocol = {
            "steps": steps,
            "nfe": made.nfe,
            "sampler": program.sampler,
            "grid": [float(t) for t in generate.time_grid(exp, steps)],
            **generate.guidance(exp),
            "seed": seed,
            "seconds": round(made.seconds, 3),
            "reference": None,
            "against": judge.against,
        }
        for name in chosen:
            values = judge.values(name, made.x, made.labels, seed)
            floor = judge.floor if floors else None
            rows += [{**row, **protocol} for row in described(exp, name, values, seed, floor, steps)]
    return rows


def of_model(exp: Experiment, params: Params, seed: int, floor: Floor) -> Iterator[Row]:
    """The metrics of config.eval that measure the velocity, without samples: their steps are its evaluations."""
    for name in metrics.of_models(exp.config.eval.metrics):
        start = time.perf_counter()
        values, nfe = metrics.load(name).compute(experiment.student(exp, params), exp.interpolant, exp.dataset, seed)
        protocol = {
            "steps": nfe,
            "nfe": nfe,
            "sampler": name,
            "grid": [exp.interpolant.t_max, exp.interpolant.t_min],
            **generate.guidance(exp),
            "seed": seed,
            "seconds": round(time.perf_counter() - start, 3),
            "reference": None,
            "against": None,
        }
        for row in described(exp, name, values, seed, floor, None):
            yield {**row, **protocol, "num_samples": metrics.load(name).num_samples}


def references(exp: Experiment, seed: int) -> Iterator[Row]:
    """The simple models that the metrics of config.eval offer for comparison."""
    nothing = dict.fromkeys(
        ("steps", "nfe", "sampler", "grid", *measurements.GUIDANCE, "seconds", "ema", "checkpoint", "against")
    )
    for name in exp.config.eval.metrics:
        for model, measured in metrics.load(name).references.items():
            values = measured(exp.dataset, seed)
            for row in described(exp, name, values, seed, None, None):
                yield {**row, **nothing, "seed": seed, "reference": model}


def described(
    exp: Experiment, name: str, values: Mapping[str, float], seed: int, floor: Floor | None, steps: int | None
) -> Iterator[Row]:
    """A metric's values with what is known of each: the better side, the floor, the number expected at `steps`."""
    metric = metrics.load(name)
    samples = samples_of(exp, metric)
    lowest = floor(name, seed, samples) if floor else {}
    expected = exp.config.eval.expected
    for key, value in values.items():
        shown = metrics.shown(metric, key, samples)
        yield {
            "metric": shown,
            "value": finite(value),
            "better": metric.values[key],
            "floor": finite(lowest[key]) if lowest else None,
            "expected": expected.get(f"{shown}/{steps}"),
            "num_samples": samples,
        }


def samples_of(exp: Experiment, metric: AnyMetric) -> int:
    """How many samples of the run's, or examples, the metric takes."""
    return min(num_samples(exp) or metric.num_samples, metric.num_samples)


def value_names(exp: Experiment) -> list[str]:
    """What config.eval measures, under the names that the measurements have."""
    chosen = [metrics.load(name) for name in exp.config.eval.metrics]
    return [metrics.shown(metric, value, samples_of(exp, metric)) for metric in chosen for value in metric.values]


def finite(value: float) -> float | None:
    """The value, or None for what JSON has no word for."""
    return float(value) if math.isfinite(value) else None


def provenance(exp: Experiment, workdir: Path) -> dict[str, Any]:
    """What was trained on what, and what ran it."""
    return {
        "config": workdir.resolve().name,
        "method": exp.config.method.name,
        "dataset": exp.config.data.name,
        "data": exp.dataset.fingerprint,
        "versions": {"flowmaps": flowmaps.__version__, **versions()},
        "device": jax.devices()[0].device_kind,
    }


def decays(exp: Experiment) -> list[float | None]:
    """The decays of the averages that config.eval.ema names by index; None for the raw weights. Raises UsageError."""
    kept = exp.config.train.ema
    if not exp.config.eval.ema:
        raise UsageError(f"eval.ema=() names no weights to measure; {RAW}: raw weights")
    for index in exp.config.eval.ema:
        if not RAW <= index < len(kept):
            known = ", ".join(f"{i} (decay {decay})" for i, decay in enumerate(kept))
            raise UsageError(
                f"eval.ema={index} is none of the averages {known or '(there are none)'}; {RAW}: raw weights"
            )
    return [None if index == RAW else kept[index] for index in exp.config.eval.ema]


def latest(exp: Experiment, workdir: Path) -> tuple[int, Averages]:
    """The step and the averages of the last checkpoint. Raises MissingError where there is none that can be read."""
    abstract = abstract_averages(exp)
    with Checkpoints(workdir / "checkpoints", read_only=True) as saved:
        restored = saved.restore(abstract, partial=True)
    return restored.step, averages(exp, restored.state)


def students(exp: Experiment, workdir: Path, counts: Sequence[int] | None = None) -> Iterator[Student]:
    """Who generates with the step counts of config.eval, or those given: the last checkpoint, and in a run of stages
    for each count the one at its stage's end. Raises MissingError where there is none that can be read."""
    counts = exp.config.eval.steps if counts is None else counts
    newest, averages_of_newest = latest(exp, workdir)
    found: dict[int, list[int]] = {}
    for count in counts:
        found.setdefault(stages.checkpoint_of(exp.method, count, newest), []).append(count)
    if late := found.pop(None, []):
        logging.info("not trained yet: students of %s steps", ", ".join(map(str, late)))
    for step in sorted({newest, *found}):
        weights = averages_of_newest if step == newest else at_step(exp, workdir, step)
        yield Student(step, tuple(found.get(step, ())), weights)


def at_step(exp: Experiment, workdir: Path, step: int) -> Averages:
    """The averages of a checkpoint."""
    with Checkpoints(workdir / "checkpoints", read_only=True) as saved:
        return averages(exp, saved.restore(abstract_averages(exp), step, partial=True).state)


def best_of_others(exp: Experiment, workdir: Path) -> Iterator[Student]:
    """The best checkpoint, where that is another than the last and can be read; in a run of stages they have several
    step counts, and none is the best."""
    if exp.method.stages:
        return
    with Checkpoints(workdir / "checkpoints", read_only=True) as saved:
        scores = {step: saved.meta(step)["score"] for step in saved.steps()}
        scored = {step: score for step, score in scores.items() if score is not None}
        if scored and (step := min(scored, key=scored.get)) != max(scores):
            with suppress(MissingError):  # a broken one has its line in the log
                weights = averages(exp, saved.restore(abstract_averages(exp), step, partial=True).state)
                yield Student(step, tuple(exp.config.eval.steps), weights)


def abstract_averages(exp: Experiment) -> dict[str, dict[str, Params]]:
    """The part of a state that holds what config.eval.ema names."""
    chosen = decays(exp)
    student = experiment.abstract_state(exp).params["student"]
    averaged = {str(decay): student for decay in chosen if decay is not None}
    raw = {"student": student} if None in chosen else {}
    return {item: part for item, part in {"ema": averaged, "params": raw}.items() if part}


def averages(exp: Experiment, state: Mapping[str, Mapping[str, Params]]) -> Averages:
    """What config.eval.ema names, of such a part of a state."""
    found = {d: state["params"]["student"] if d is None else state["ema"][str(d)] for d in decays(exp)}
    return {d: experiment.with_weak(exp, params) for d, params in found.items()}


def write(directory: Path, rows: list[Row]) -> None:
    """Adds rows to measurements.jsonl, and makes the table and the plot of all that it then holds."""
    everything = measurements.record(directory / "measurements.jsonl", rows)
    write_whole(directory / "table.csv", measurements.as_csv(everything))
    write_whole(directory / "quality.png", plots.quality(everything))
    if len(measurements.scales(everything)) > 1:
        write_whole(directory / "guidance.png", plots.guidance(everything))
