"""Trains, evaluates, samples and compares flow maps.

    python main.py --config=configs/lsd_checker.py --mode=train --workdir=runs/lsd_checker

The same command again goes on where a run was interrupted. Any field is set by --config.FIELD=VALUE. Logs and progress
go to standard error; standard output ends with one JSON line. Exit codes: 0 done, or terminated and saved; 1 a wrong
value; 2 data or a checkpoint missing; 3 training not finite; 4 another process failed; 130 interrupted.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from ml_collections import config_flags

from flowmaps import command_line, compare, evaluate, processes, report, sample, stats, train, workdir

FLAGS = flags.FLAGS
config_flags.DEFINE_config_file("config", None, "FILE or FILE:VARIANT of a config.", lock_config=True)
flags.DEFINE_enum("mode", "train", ["train", "eval", "sample", "compare", "stats"], "What to do.")
flags.DEFINE_string("workdir", None, "Folder of the run, by default runs/CONFIG[_VARIANT]; to compare: RUN,RUN,...")
flags.DEFINE_string("output", "runs/comparison", "Folder of what --mode=compare writes.")
flags.DEFINE_bool("overwrite", False, "Remove the run of another config from the workdir.")
flags.DEFINE_bool("distributed", None, "Join the other processes of a cluster; by default where one is detected.")
flags.DEFINE_float("distributed_timeout", processes.PATIENCE, "Seconds to wait for the other processes.")


def main(arguments: Sequence[str]) -> None:
    with command_line.one_line_errors():
        command_line.check_usage(FLAGS, arguments)
        command_line.begin(FLAGS)
        result = run(FLAGS.mode, FLAGS.workdir or default_workdir(FLAGS["config"].config_filename))
        sys.stdout.write(json.dumps(result) + "\n")


def run(mode: str, directory: str) -> dict:
    if mode in ("compare", "stats"):
        return stats.run(FLAGS.config) if mode == "stats" else compare.run(directory.split(","), FLAGS.output)
    if mode == "train":
        return train.run(FLAGS.config, directory, overwrite=FLAGS.overwrite)
    workdir.check(FLAGS.config, directory)
    command_line.check_trained(directory, sys.argv)
    if mode == "eval":
        rows = evaluate.of_own_scale(FLAGS.config, evaluate.run(FLAGS.config, directory))
        made = {"measurements": train.headline(rows)}
    else:
        made = {"samples": str(sample.run(FLAGS.config, directory))}
    return {"mode": mode, "workdir": directory, **made, **report.refresh(directory)}


def default_workdir(config: str) -> str:
    return str(Path("runs") / config.removesuffix(".py").replace(".py:", "_").rpartition("/")[2])


if __name__ == "__main__":
    app.run(main, flags_parser=command_line.parse)
