"""Trains and compares the few-step methods with one network and one budget, on planes and on digits.

    python -m scripts.benchmark_methods --cores=0,1
    python -m scripts.benchmark_methods lsd_checker mean_flow_checker --steps-checker=20000 --seeds=0
    python -m scripts.benchmark_methods --distilled --cores=0,1
    python -m scripts.benchmark_methods dmd2_rings imle_rings --results=matching --as-configured

Without names: all configs of the data sets whose method learns more than the diagonal from data alone, and flow
matching; with --distilled all that learn from a trained model, beside these models, which are trained, and their pairs
made, where they are not in runs/. A run is a job of main.py on one core, in runs/benchmark/DATA_STEPS/CONFIG_seedN.
After an interruption the same command goes on: finished runs are kept, others resume. At the end, for each data set:
the page of --mode=compare beside the runs, a table on standard output, and results/benchmark_DATA.jsonl (or
distilled_DATA.jsonl, or another by --results), a line with the command, the machine, versions and what training cost,
then a line for each measurement. Network, batch and number of steps are those of the data set's bundle, or with
--as-configured each config's own; the table has the seconds that training was to take and those that were logged.
"""

import argparse
import importlib
import json
import os
import platform
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ml_collections import ConfigDict

from configs import base
from flowmaps import experiment, measurements, workdir
from flowmaps.files import write_whole

BUNDLES = {"checker": base.checker, "digits": base.digits, "rings": base.rings}
STEPS = {"checker": 80_000, "digits": 8_000, "rings": 30_000}
"""Those of the bundles, with which the configs' own figures were measured."""
TARGET = 180
"""Seconds of training a run on one core, that is 90 a run on two cores, which these steps keep to but for the methods
that cost most."""
BASELINE = "flow_matching"


PAIRS = {"checker": 200_000, "digits": 50_000, "rings": 100_000}
"""Those that students learn from."""
PAIR_STEPS = 32


class Job(NamedTuple):
    """A config to train with a seed."""

    config: str
    seed: int
    steps: int
    workdir: Path


def dataset(run: str) -> str:
    """The data set in the name of a config, or of a run of one, which ends with the variant; "" where there is none."""
    return next((part for part in reversed(run.split("_")) if part in BUNDLES), "")


def config_file(run: str) -> str:
    """The config of a run by its name, with the variant that it ends with: configs/METHOD_DATA.py:VARIANT."""
    if Path(base.__file__).with_name(f"{run}.py").is_file():
        return f"configs/{run}.py"
    config, _, variant = run.rpartition("_")
    return f"configs/{config}.py:{variant}"


def all_configs() -> list[str]:
    """The configs of these data sets."""
    return sorted(path.stem for path in Path("configs").glob("*.py") if path.stem.rpartition("_")[2] in BUNDLES)


def few_step_configs() -> list[str]:
    """Those whose method learns the map off the diagonal from data alone, for several numbers of steps, with its data
    set's network, and the baseline."""
    return [name for name in all_configs() if name.startswith(BASELINE) or learns_map_from_data(name)]


def distilled_configs() -> list[str]:
    """Those that learn from a trained model, with its network."""
    return [name for name in all_configs() if learned_from(read(name)) and comparable(name)]


def comparable(name: str) -> bool:
    """Whether a config has its data set's own network and batch size, as the others have."""
    config, bundle = read(name), BUNDLES[dataset(name)](BASELINE)
    config.network.scale = bundle.network.scale  # the unit of its inputs belongs to the path
    return config.network == bundle.network and config.train.batch_size == bundle.train.batch_size


def learns_map_from_data(name: str) -> bool:
    """Whether a config's method trains more than v_{t,t}, for more than one step, and no trained model is needed."""
    config = read(name)
    several = max(config.eval.steps) > 1 and comparable(name)
    return several and not learned_from(config) and not experiment.build(config).method.diagonal_only


def read(name: str) -> ConfigDict:
    """The config of a run by its name."""
    path, _, variant = config_file(name).partition(":")
    get_config = importlib.import_module(f"configs.{Path(path).stem}").get_config
    return get_config(variant) if variant else get_config()


def learned_from(config: ConfigDict) -> list[str]:
    """The names of the configs whose runs it names."""
    named = {config.teacher.workdir, config.init_from} - {None}
    return sorted(Path(workdir).name for workdir in named)


def prepare(names: Sequence[str]) -> list[Path]:
    """Trains the models that the configs learn from and makes their pairs, where they are not there yet; their
    workdirs."""
    found = []
    for name in names:
        config = read(name)
        for model in learned_from(config):
            found += [*prepare([model]), Path("runs", model)]
            if not (found[-1] / "report.html").is_file():
                main_py(f"--config={config_file(model)}", "--mode=train")
        if "pairs" in config.coupling:
            main_py(*pairs_command(config))
    return list(dict.fromkeys(found))


def pairs_command(config: ConfigDict) -> list[str]:
    """What makes the pairs that a config names: by Heun's method where their model has no solver of its own."""
    folder = Path(config.coupling.pairs)
    model, points = folder.parent.name, 16 if folder.name == "trajectories" else 1
    sample = {"pairs": PAIRS[dataset(model)], "points": points, "steps": f"({PAIR_STEPS},)"}
    if not read(model).sample.solver:
        sample["solver"] = "heun"
    fields = (f"--config.sample.{name}={value}" for name, value in sample.items())
    return [f"--config={config_file(model)}", "--mode=sample", *fields]


def main_py(*arguments: str) -> None:
    """Runs main.py."""
    subprocess.run([sys.executable, "main.py", *arguments], check=True, stdout=subprocess.DEVNULL)


def check(name: str, as_configured: bool = False) -> None:
    """Exits where the config is not of these data sets, or has another network or batch than the others, which it may
    have where it is trained as it is configured."""
    if not dataset(name) or not Path(f"configs/{name}.py").is_file():
        sys.exit(f"{name} is not the name of a config of {' or '.join(BUNDLES)}")
    if not as_configured and not comparable(name):
        sys.exit(f"{name} has another network or batch size than {BASELINE}_{dataset(name)}: give --as-configured")


def train(jobs: Sequence[Job], cores: Sequence[str]) -> None:
    """Trains what is not finished, one job on each core at a time. Where one fails, or on an interruption, those that
    run are told to save and end."""
    waiting = [job for job in jobs if not finished(job)]
    running: dict[str, tuple[Job, subprocess.Popen]] = {}
    try:
        while waiting or running:
            for core in cores:
                if core in running and running[core][1].poll() is not None:
                    job, _ = running.pop(core)
                    if not finished(job):
                        sys.exit(f"{job.workdir} did not finish: see {job.workdir}.log")
                if core not in running and waiting:
                    job = waiting.pop(0)
                    sys.stderr.write(f"core {core}: {job.workdir}, {len(waiting)} more are waiting\n")
                    running[core] = job, start(job, core)
            time.sleep(0.5)
    finally:
        for _, child in running.values():
            child.terminate()
            child.wait()


def start(job: Job, core: str) -> subprocess.Popen:
    """Starts or resumes a run on a core; its output goes to a file beside its workdir."""
    fields = {"seed": job.seed, "train.steps": job.steps}
    command = ["taskset", "-c", core, sys.executable, "main.py", "--mode=train", f"--workdir={job.workdir}"]
    command += [f"--config=configs/{job.config}.py", *(f"--config.{name}={value}" for name, value in fields.items())]
    job.workdir.parent.mkdir(parents=True, exist_ok=True)
    with Path(f"{job.workdir}.log").open("a") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def finished(job: Job) -> bool:
    """Whether the run has made its report, which comes last."""
    return (job.workdir / "report.html").is_file()


def compare(found: Sequence[Path], output: Path) -> list[dict[str, Any]]:
    """What --mode=compare says of each config."""
    workdirs = ",".join(map(str, found))
    command = [sys.executable, "main.py", "--mode=compare", f"--workdir={workdirs}", f"--output={output}"]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    return json.loads(said.splitlines()[-1])["lines"]


def table(lines: Sequence[dict[str, Any]]) -> str:
    """A row a config: its cost, and its first metric at each number of steps that it was measured with."""
    metric = next(iter(lines[0]["measurements"])).partition("/")[0]
    names = dict.fromkeys(name for line in lines for name in line["measurements"] if name.startswith(f"{metric}/"))
    rows = [["run", "passes a row", "passes, millions", f"seconds (target {TARGET})", *names]]
    rows.append(["---"] * len(rows[0]))
    for line in lines:
        cost = [
            f"{line['passes_per_row']:.2f}",
            measurements.number(line["passes"] / 1e6),
            f"{60 * line['minutes']:.0f}",
        ]
        rows.append([line["label"], *cost, *(figure(line["measurements"].get(name, "")) for name in names)])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def figure(value: float | Literal[""] | None) -> str:
    """A measurement as text, "" where there is none; that of a run that diverged is None."""
    return "not finite" if value is None else value and measurements.number(value)


def about(cores: Sequence[str]) -> dict[str, Any]:
    """How and where the numbers come about."""
    found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    machine = {"cpu": found[1] if found else platform.processor(), "cores": os.cpu_count(), "used": list(cores)}
    command = shlex.join(["python", "-m", "scripts.benchmark_methods", *sys.argv[1:]])
    return {"command": command, "machine": machine, "commit": workdir.commit(), "versions": workdir.versions()}


def conclude(name: str, jobs: Sequence[Job], models: Sequence[Path], cores: Sequence[str]) -> None:
    """Compares the runs of a data set beside what they learned from, writes the results and prints their table."""
    data, found = dataset(jobs[0].config), [*models, *(job.workdir for job in jobs)]
    steps = {job.config: job.steps for job in jobs}
    lines = compare(found, jobs[0].workdir.parent / f"comparison_{name}")
    rows = [row for workdir in found for row in measurements.read(workdir / "eval" / "measurements.jsonl")]
    first = {**about(cores), "target_seconds": TARGET, "steps": steps, "lines": lines}
    write_whole(Path(f"results/{name}_{data}.jsonl"), "".join(json.dumps(r) + "\n" for r in (first, *rows)))
    said = ", ".join(f"{number:,}" for number in sorted(set(steps.values())))
    sys.stdout.write(f"{data}, {said} steps\n\n{table(lines)}\n\n")


def main() -> None:
    """Trains, compares and writes the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="configs, such as lsd_checker")
    for name, steps in STEPS.items():
        parser.add_argument(f"--steps-{name}", type=int, default=steps, help="steps of training (%(default)s)")
    parser.add_argument(
        "--as-configured", action="store_true", help="each config with its own network, batch and steps"
    )
    parser.add_argument("--results", help="name of the results (benchmark, or distilled)")
    parser.add_argument("--seeds", default="0,1,2", help="seeds of training (%(default)s)")
    parser.add_argument("--cores", default="0", help="cores, a job on each at a time (%(default)s)")
    parser.add_argument("--distilled", action="store_true", help="the configs that learn from a trained model")
    given = parser.parse_args()
    cores, jobs = given.cores.split(","), []
    names = given.names or (distilled_configs() if given.distilled else few_step_configs())
    for name in names:
        check(name, given.as_configured)
        steps = read(name).train.steps if given.as_configured else getattr(given, f"steps_{dataset(name)}")
        run = f"runs/benchmark/{dataset(name)}_{steps}/{name}_seed"
        jobs += [Job(name, int(seed), steps, Path(f"{run}{seed}")) for seed in given.seeds.split(",")]
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        models = prepare(names)
        train(jobs, cores)
    except KeyboardInterrupt:
        sys.exit("interrupted: the same command goes on")
    for data in dict.fromkeys(map(dataset, names)):
        mine = [job for job in jobs if dataset(job.config) == data]
        beside = [model for model in models if dataset(model.name) == data and model.name not in names]
        conclude(given.results or ("distilled" if given.distilled else "benchmark"), mine, beside, cores)


if __name__ == "__main__":
    main()
