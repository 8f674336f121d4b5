"""`--mode=train`: a run starts or resumes, takes its steps, and ends with its evaluation, samples and report."""

import json
import math
import signal
import threading
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import cache, partial
from pathlib import Path
from typing import Any, SupportsFloat

import jax
import numpy as np
from absl import logging
from clu import parameter_overview
from ml_collections import ConfigDict

from flowmaps import (
    data,
    evaluate,
    experiment,
    generate,
    lookup,
    report,
    sample,
    sharding,
    stages,
    trained,
)
from flowmaps import workdir as runs
from flowmaps.checkpoints import Checkpoints
from flowmaps.errors import NonFiniteError, UsageError
from flowmaps.experiment import Experiment
from flowmaps.measurements import Row
from flowmaps.state import TrainState
from flowmaps.train_step import Metrics, Step
from flowmaps.types import stage_ends
from flowmaps.writers import Progress, Writer

AT_LEAST_ONE = ("steps", "log_every", "checkpoint_every", "keep", "max_skipped")
AT_LEAST_ZERO = ("keep_best", "keep_period", "eval_every")
LATEST = ("learning_rate", "skipped")
"""Metrics, of any player, that are logged as they were last; of the others the mean over the last steps is logged."""
WINDOW = 100
"""Steps, at most and since the last line, that a logged mean is over."""


def run(config: ConfigDict, workdir: str | Path, *, overwrite: bool = False) -> dict[str, Any]:
    """Trains until config.train.steps, from the newest checkpoint in `workdir` where there is one; then evaluates,
    samples and writes the report. Returns what the program prints as its last line.

    SIGTERM or Ctrl-C ends it early, with everything saved: the same command goes on from there, to the bit on a CPU.
    Among several processes Ctrl-C ends it at once, and the last checkpoint is what the same command goes on from.
    With `overwrite` the run of another config is removed from `workdir` first.

    Raises:
      UsageError: a value that cannot be, or a workdir that belongs to another config; nothing has been written then.
      MissingError: data that are not there, or checkpoints none of which can be read.
      NonFiniteError: config.train.max_skipped updates of a player in a row were not finite.
    """
    workdir, started = Path(workdir).resolve(), time.monotonic()
    if not overwrite:
        runs.check(config, workdir)
    terminated = threading.Event()
    with on_signals(lambda *_: terminated.set()):
        exp = build(config)
        take = experiment.train_step(exp)
        fresh = None if runs.goes_on(config, workdir) else experiment.init(exp)
        check_length(exp, workdir, fresh)
        if jax.process_index() == 0:
            runs.begin(config, workdir, overwrite=overwrite)
        step = train(exp, take, fresh, workdir, terminated.is_set, started)
    done = {"mode": "train", "workdir": str(workdir), "step": step}
    if step >= config.train.steps and not terminated.is_set():
        with suppress(KeyboardInterrupt), on_signals(signal.default_int_handler):
            return {**done, **conclude(config, workdir)}
    logging.info("told to end: saved at step %d, from which the same command goes on", step)
    return {**done, "terminated": True}


def build(config: ConfigDict) -> Experiment:
    """The experiment, with all of its config looked at, so that what cannot be trained, measured or drawn fails now."""
    check_counts(config)
    exp = experiment.build(config)
    log_devices(exp)
    evaluate.check(exp)
    sample.check(exp)
    check_best_metric(exp)
    check_guidance(config)
    check_agreement(exp)
    return exp


def train(
    exp: Experiment,
    take: Step,
    fresh: TrainState | None,
    workdir: Path,
    terminated: Callable[[], bool],
    started: float,
) -> int:
    """Takes the steps that are left, from the newest checkpoint or else from `fresh`, or as many as there are until
    `terminated`; returns how many there are in all.

    The host runs ahead of the devices: it waits for them only where it logs, saves, or looks at skipped updates.
    """
    chosen, active = exp.config.train, jax.process_index() == 0
    kept = {name: chosen[name] for name in ("keep", "keep_best", "keep_period")}
    of_run = {"config": runs.plain(exp.config), "dataset": exp.fingerprint}
    meta = {**of_run, "versions": runs.versions(), "commit": runs.commit()}
    measure = measurement(exp)
    ends = stage_ends(exp.method.stages)
    with Checkpoints(workdir / "checkpoints", **kept, keep_steps=ends) as checkpoints:
        state, batches = start(exp, fresh, checkpoints)
        first = step = int(state.step)
        stopping = checkpoints.reached_preemption if jax.process_count() > 1 else lambda step: terminated()

        def save(score: float | None = None, *, wait: bool = False) -> None:
            checkpoints.save(step, state, {"position": batches.position}, meta, score=score, wait=wait)

        with (
            Writer(workdir, step=step, active=active) as writer,
            Progress(step, chosen.steps, active=active) as progress,
        ):
            recent = deque(maxlen=WINDOW)
            while step < chosen.steps and not stopping(step):
                state, measured = take(state, next(batches))
                step += 1
                recent.append(measured)
                progress.advance()
                if step == first + 1:
                    log_first_step(step, measured, progress, started)
                if step % chosen.max_skipped == 0:
                    check_finite(state, chosen.max_skipped)
                if step % chosen.log_every == 0 or step == chosen.steps:
                    log_metrics(step, recent, writer, progress, chosen.batch_size)
                    recent.clear()
                if chosen.eval_every and step % chosen.eval_every == 0:
                    rows = measure(state)
                    writer.scalars(
                        step, {f"eval/{name}": math.nan if v is None else v for name, v in headline(rows).items()}
                    )
                    save(score(rows, exp.config.eval.best_metric))
                if step % chosen.checkpoint_every == 0 or step in ends:
                    save()
            check_finite(state, chosen.max_skipped)
            save(wait=True)
    return step


def start(exp: Experiment, fresh: TrainState | None, checkpoints: Checkpoints) -> tuple[TrainState, data.Loader]:
    """The state and the global batches to go on with: of the newest checkpoint, or else of the beginning.

    Raises UsageError where the data are not those that the run began with.
    """
    if fresh is None:
        step, state, saved, meta = checkpoints.restore(experiment.abstract_state(exp))
        if meta["dataset"] != exp.fingerprint:
            raise UsageError(
                f"the data have the fingerprint {exp.fingerprint}, and those that this run began with "
                f"{meta['dataset']}: bring those back, or give another --workdir"
            )
        logging.info("going on from checkpoint %d", step)
    else:
        state, saved = fresh, {"position": 0}
        table = parameter_overview.get_parameter_overview(state.params, include_stats=False)
        logging.info("parameters\n%s", table)
    batches = data.loader(
        exp.examples,
        batch_size=exp.config.train.batch_size,
        seed=exp.config.seed,
        process_index=jax.process_index(),
        process_count=jax.process_count(),
        position=saved["position"],
    )
    return state, data.ahead(batches, partial(experiment.global_batch, exp))


@contextmanager
def on_signals(handler: Callable) -> Iterator[None]:
    """Meanwhile `handler` answers SIGTERM and SIGINT (Ctrl-C). Among several processes it answers neither: orbax
    answers SIGTERM there, so that all stop at the same step."""
    if jax.process_count() > 1:
        yield
        return
    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, earlier in before.items():
            signal.signal(number, earlier)


def check_length(exp: Experiment, workdir: Path, fresh: TrainState | None) -> None:
    """Raises UsageError where the run in the workdir has taken more steps than train.steps, or has stages, which are
    shares of train.steps, and began with another number."""
    config = exp.config
    taken = 0 if fresh is not None else runs.newest_step(workdir)
    if taken and exp.method.stages and (before := trained.read(workdir, "workdir").train.steps) != config.train.steps:
        raise UsageError(
            f"{workdir} divides train.steps={before} into stages: go on with as many, not {config.train.steps}, or "
            "give another --workdir"
        )
    if taken > config.train.steps:
        raise UsageError(
            f"{workdir} has taken {taken} steps, more than train.steps={config.train.steps}: there is nothing to train"
        )
    if taken == config.train.steps:
        logging.info("all %d steps were taken before: measuring and drawing again", taken)


def measurement(exp: Experiment) -> Callable[[TrainState], list[Row]]:
    """Measures a state as config.eval says, with its first sampler, average and seed; compiled at the first use."""

    @cache
    def program() -> generate.Program:
        return evaluate.program(exp, exp.config.eval.samplers[0])

    judge = cache(partial(evaluate.make_judge, exp))

    def measure(state: TrainState) -> list[Row]:
        index = exp.config.eval.ema[0]
        averaged = index != evaluate.RAW
        params = state.ema[str(exp.config.train.ema[index])] if averaged else state.params["student"]
        counts = stages.learned(exp.method, int(state.step), exp.config.eval.steps)
        return evaluate.measure(exp, params, program(), judge(), seed=exp.config.eval.seeds[0], step_counts=counts)

    return measure


def conclude(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Evaluates and samples a trained run and writes its report: {"measurements", "samples", "report"}."""
    rows = evaluate.of_own_scale(config, evaluate.run(config, workdir))
    samples = sample.run(config, workdir)
    return {"measurements": headline(rows), "samples": str(samples), **report.refresh(workdir)}


def headline(rows: Sequence[Row]) -> dict[str, float | None]:
    """ "METRIC/STEPS" -> value, of the first average, sampler and seed."""
    values = {f"{row['metric']}/{row['steps']}": row["value"] for row in reversed(rows) if row["reference"] is None}
    return dict(reversed(values.items()))


def score(rows: Sequence[Row], best_metric: str) -> float | None:
    """The value of "METRIC/STEPS", such that lower is better; None where there is none."""
    for row in rows:
        if f"{row['metric']}/{row['steps']}" == best_metric and row["value"] is not None:
            return {"lower": row["value"], "higher": -row["value"], "one": abs(row["value"] - 1)}[row["better"]]
    return None


def log_devices(exp: Experiment) -> None:
    """The first line of a run's log."""
    device, hosts = exp.mesh.devices.flat[0], jax.process_count()
    devices, batch_size = exp.mesh.size // hosts, exp.config.train.batch_size
    logging.info(
        "platform %s, %d devices of kind %s, %d processes; global batch %d = %d hosts x %d devices x %d per device",
        *(device.platform, exp.mesh.size, device.device_kind, hosts),
        *(batch_size, hosts, devices, batch_size // exp.mesh.size),
    )


def log_first_step(step: int, measured: Metrics, progress: Progress, started: float) -> None:
    """The time to the first step, and of it, which compiles; the speed counts from here."""
    jax.block_until_ready(measured)
    took, since = 1 / progress.speed(step), time.monotonic() - started
    logging.info(
        "step %d was done %.1f s after training was begun; it took %.1f s, compilation included", step, since, took
    )


def log_metrics(step: int, recent: Iterable[Metrics], writer: Writer, progress: Progress, batch_size: int) -> None:
    """Writes the metrics of the last steps, and how many steps and examples of the data a second takes."""
    values = averages(jax.device_get(list(recent)))
    speed = progress.speed(step)
    writer.scalars(step, {**values, "steps_per_second": speed, "examples_per_second": speed * batch_size})
    progress.report(step, {**values, "examples/s": speed * batch_size}, speed)


def averages(recent: Sequence[Mapping[str, SupportsFloat]]) -> dict[str, float]:
    """Means over steps, of what is finite; nan where nothing is, as for a player that had no turn."""
    names = sorted(recent[0], key=lambda name: (name != "loss", name))
    values = {name: np.array([measured[name] for measured in recent], np.float64) for name in names}
    finite = {name: row[np.isfinite(row)] for name, row in values.items()}

    def logged(name: str, row: np.ndarray) -> float:
        return float(row[-1] if name.split("/")[-1] in LATEST else row.mean()) if row.size else math.nan

    return {name: logged(name, row) for name, row in finite.items()}


def check_finite(state: TrainState, most: int) -> None:
    """Raises NonFiniteError where `most` updates of a player in a row were skipped, up to this step or before."""
    for player, in_a_row in jax.device_get(state.most_skipped_in_a_row).items():
        if in_a_row >= most:
            section = "optimizer" if player == "student" else f"players.{player}.optimizer"
            raise NonFiniteError(
                f"step {int(state.step)}: {in_a_row} updates in a row were not finite and were skipped by player "
                f"{player!r}: lower {section}.learning_rate or {section}.clip_norm"
            )


def check_counts(config: ConfigDict) -> None:
    """Raises UsageError for a number of steps or checkpoints below the least that means something."""
    least = {**dict.fromkeys(AT_LEAST_ONE, 1), **dict.fromkeys(AT_LEAST_ZERO, 0)}
    for name, lowest in least.items():
        if config.train[name] < lowest:
            raise UsageError(f"train.{name}={config.train[name]} must be at least {lowest}")


def check_best_metric(exp: Experiment) -> None:
    """Raises UsageError where eval.best_metric is not among what is measured during training."""
    chosen = exp.config.eval
    if chosen.best_metric and exp.config.train.eval_every:
        names = [f"{name}/{steps}" for name in evaluate.value_names(exp) for steps in chosen.steps]
        lookup.check_name("eval.best_metric", chosen.best_metric, names)


def check_guidance(config: ConfigDict) -> None:
    """Raises UsageError where samples are guided by a run that training, which measures them, does not hold."""
    if config.train.eval_every and trained.named(config.guidance.weak) is not None:
        raise UsageError(
            f"guidance.weak={config.guidance.weak!r} guides once a run is trained, and train.eval_every="
            f"{config.train.eval_every} measures before: leave out one of them"
        )


def check_agreement(exp: Experiment) -> None:
    """Raises UsageError where the processes of a run were started with different configs or found different data."""
    if jax.process_count() > 1:
        what = json.dumps([runs.plain(exp.config), exp.fingerprint], sort_keys=True)
        digest = np.full(exp.mesh.size // jax.process_count(), zlib.crc32(what.encode()), np.uint32)
        everywhere = sharding.global_batch(exp.mesh, {"digest": digest})["digest"]
        ends = jax.jit(lambda x: (x.min(), x.max()), out_shardings=sharding.replicated(exp.mesh))(everywhere)
        if ends[0] != ends[1]:
            raise UsageError("the processes have different configs or data: start all with the same command and files")
