"""Searches the times between the ends at which re-noising steps of a trained run do best (Song et al. 2023,
arXiv:2303.01469, section 4 and algorithm 4: greedily, one time after another).

    python -m scripts.search_times runs/ict_digits fd_digits --steps=2

The first time is sought between the path's ends, each further one between the last and the data, by a bounded scalar
search of the metric, in `eval.num_samples` samples of `eval.seeds`' first seed. The last line is the flags to use.
"""

import argparse
import math
import sys
from pathlib import Path

from scipy.optimize import minimize_scalar

from flowmaps import command_line, evaluate, experiment, lookup, metrics, trained
from flowmaps.errors import MissingError, UsageError
from flowmaps.experiment import Experiment
from flowmaps.generate import Program
from flowmaps.judges import Judge
from flowmaps.types import Params

SAMPLER = "renoising"
TOLERANCE = 0.01
"""In the path's clock."""


def quality(
    exp: Experiment, program: Program, judge: Judge, params: Params, metric: str, times: tuple[float, ...]
) -> float:
    """The metric of samples along the times, by its better side: smaller is better."""
    exp.config.sample.grid = grid(times)
    exp.config.eval.steps = (len(times) - 1,)
    rows = evaluate.measure(exp, params, program, judge, seed=exp.config.eval.seeds[0])
    row = next(row for row in rows if row["metric"] == metric)
    sys.stderr.write(f"{exp.config.sample.grid}: {row['value']}\n")
    if row["value"] is None:
        return math.inf
    return row["value"] if row["better"] == "lower" else -row["value"]


def grid(times: tuple[float, ...]) -> str:
    """The times as a grid's name."""
    return f"given(times=({', '.join(f'{t:.4g}' for t in times)}))"


def search(exp: Experiment, params: Params, metric: str, steps: int) -> tuple[float, ...]:
    """The path's ends with the best times between them, found one after another. Raises UsageError."""
    if steps < 1:
        raise UsageError(f"--steps={steps}: there is at least 1")
    known = {value: name for name in metrics.of_samples(metrics.names()) for value in metrics.load(name).values}
    lookup.check_name("metric", metric, known)
    exp.config.eval.metrics = (known[metric],)
    metric = dict(zip(metrics.load(known[metric]).values, evaluate.value_names(exp), strict=True))[metric]
    program, judge = evaluate.program(exp, SAMPLER), evaluate.make_judge(exp)
    times, end = (exp.interpolant.t_min,), exp.interpolant.t_max
    for _ in range(steps - 1):
        if times[-1] + 2 * TOLERANCE >= end - TOLERANCE:
            raise UsageError(f"{metric} is best with the last of {len(times)} steps at the data: search fewer --steps")
        found = minimize_scalar(
            lambda t, past=times: quality(exp, program, judge, params, metric, (*past, float(t), end)),
            bounds=(times[-1] + TOLERANCE, end - TOLERANCE),
            method="bounded",
            options={"xatol": TOLERANCE},
        )
        if float(found.x) < times[-1] + 2 * TOLERANCE:
            sys.stderr.write(f"the best time is hardly after {times[-1]:.4g}: the step there brings nothing\n")
        times = (*times, float(found.x))
    return (*times, end)


def main() -> None:
    """Searches, and prints the flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("metric", help="such as fd_digits or sliced_w2")
    parser.add_argument("--steps", type=int, default=2, help="network evaluations (%(default)s)")
    given = parser.parse_args()
    command_line.quiet_libraries()
    try:
        exp = experiment.build(trained.read(given.workdir, "workdir"))
        _, averages = evaluate.latest(exp, given.workdir)
        times = search(exp, next(iter(averages.values())), given.metric, given.steps)
    except (UsageError, MissingError) as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(error.exit_code)
    flags = [f"--config.{mode}.steps='({given.steps},)'" for mode in ("sample", "eval")]
    sys.stdout.write(f"--config.sample.sampler={SAMPLER} --config.sample.grid='{grid(times)}' {' '.join(flags)}\n")


if __name__ == "__main__":
    main()
