"""The program as it is called: what it prints, how it exits, and one line for each mistake."""

import errno
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import launcher
import pytest
from launcher import ROOT

from configs import base
from flowmaps import command_line
from flowmaps.errors import MissingError, NonFiniteError, UsageError

USAGE, MISSING, NON_FINITE = UsageError.exit_code, MissingError.exit_code, NonFiniteError.exit_code
CONFIG = f"--config={launcher.TINY}"

MISTAKES = {
    "unknown field": ([CONFIG, "--config.train.stps=5"], USAGE, ["field of config.train 'stps'", "mean 'steps'"]),
    "unknown section": ([CONFIG, "--config.trian.steps=5"], USAGE, ["field of config 'trian'", "mean 'train'"]),
    "field of a value": ([CONFIG, "--config.seed.x=5"], USAGE, ["config.seed.x", "config.seed is a value"]),
    "section as a value": ([CONFIG, "--config.eval=5"], USAGE, ["config.eval is a section", "num_samples"]),
    "word for an int": ([CONFIG, "--config.train.steps=abc"], USAGE, ["--config.train.steps: 'abc'", "type int"]),
    "float for an int": ([CONFIG, "--config.train.steps=0.5"], USAGE, ["config.train.steps: '0.5'", "type int"]),
    "word for a float": ([CONFIG, "--config.guidance.scale=x"], USAGE, ["config.guidance.scale: 'x'", "type float"]),
    "word for a bool": ([CONFIG, "--config.network.residual=x"], USAGE, ["config.network.residual: 'x'", "bool"]),
    "words for ints": ([CONFIG, "--config.eval.steps=1,b"], USAGE, ["config.eval.steps: '1,b'", "type int"]),
    "no value": ([CONFIG, "--config.seed"], USAGE, ["--config.seed: '--workdir=", "type int"]),
    "unknown flag": ([CONFIG, "--workdri=x"], USAGE, ["unknown", "'workdri'", "workdir"]),
    "unknown mode": ([CONFIG, "--mode=trian"], USAGE, ["--mode=trian", "train|eval|sample"]),
    "stray word": ([CONFIG, "train"], USAGE, ["usage: python main.py --config="]),
    "no config": ([], USAGE, ["usage: python main.py --config="]),
    "unknown config": ([CONFIG.replace("tiny", "tinny")], USAGE, ["unknown config", "tests/tiny.py'?"]),
    "unknown method": ([CONFIG, "--config.method.name=flow_maching"], USAGE, ["mean 'flow_matching'"]),
    "unknown network": ([CONFIG, "--config.network.name=mpl"], USAGE, ["network 'mpl'", "mean 'mlp'"]),
    "unknown data set": ([CONFIG, "--config.data.name=cheker"], USAGE, ["data set 'cheker'", "mean 'checker'"]),
    "unknown sampler": ([CONFIG, "--config.sample.sampler=one_stp"], USAGE, ["'one_stp'", "mean 'one_step'"]),
    "unknown metric": ([CONFIG, "--config.eval.metrics=sliced"], USAGE, ["metric 'sliced'", "mean 'sliced_w2'"]),
    "no steps": ([CONFIG, "--config.train.steps=0"], USAGE, ["train.steps=0 must be at least 1"]),
    "odd batch": ([CONFIG, "--config.train.batch_size=9", "--config.train.accumulate=2"], USAGE, ["9", "2"]),
    "no such score": (
        [CONFIG, "--config.train.eval_every=5", "--config.eval.best_metric=sliced_w2/3"],
        USAGE,
        ["eval.best_metric 'sliced_w2/3'", "mean 'sliced_w2/2'"],
    ),
    "no cluster": ([CONFIG, "--distributed"], USAGE, ["--distributed: ", "JAX_COORDINATOR_ADDRESS"]),
    "nothing to start from": ([CONFIG, "--config.init_from=/nowhere"], MISSING, ["/nowhere"]),
    "nothing to evaluate": (
        [CONFIG, "--mode=eval"],
        MISSING,
        ["no checkpoint in", f"python main.py {CONFIG} --workdir="],
    ),
    "config of a comparison": (
        ["--mode=compare", CONFIG],
        USAGE,
        ["--mode=compare --workdir=RUN,RUN,...", "no --config"],
    ),
    "nothing to compare": (["--mode=compare"], MISSING, ["is not the workdir of a run"]),
    "nothing to sample": ([CONFIG, "--mode", "sample"], MISSING, ["no checkpoint in", "/run --mode=train"]),
}


@pytest.mark.parametrize("arguments, code, parts", MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_one_line_and_leaves_nothing(tmp_path, arguments, code, parts):
    run = launcher.start(*arguments, f"--workdir={tmp_path / 'run'}", log=tmp_path / "log")
    assert run.wait() == code
    said = [line for line in run.err.read_text().splitlines() if not re.search("platform cpu|waiting up to", line)]
    assert len(said) == 1, said
    for part in parts:
        assert part.lower() in said[0].lower()
    assert run.out.read_text() == ""
    assert not (tmp_path / "run").exists()


def test_the_three_modes_as_they_are_called(tmp_path):
    """Train, which measures and draws as well, in a real process; then eval and sample of what it trained."""
    command = [sys.executable, "main.py", CONFIG, f"--workdir={tmp_path / 'run'}"]
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(ROOT / ".jax_cache")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    said = "platform cpu, 1 devices of kind cpu, 1 processes; global batch 8 = 1 hosts x 1 devices x 8 per device"
    assert done.stderr.splitlines()[0].endswith(said)
    assert re.search(
        r"step 1 was done [\d.]+ s after training was begun; it took [\d.]+ s, compilation included", done.stderr
    )
    assert "step 40 of 40: loss " in done.stderr
    trained = json.loads(done.stdout.splitlines()[-1])
    assert trained["step"] == 40 and trained["measurements"].keys() == {"sliced_w2/1", "sliced_w2/2"}
    assert Path(trained["report"]).read_text().startswith("<!")
    Path(trained["report"]).unlink()
    measured, drawn = (
        launcher.start(CONFIG, f"--mode={mode}", f"--workdir={tmp_path / 'run'}", log=tmp_path / mode)
        for mode in ("eval", "sample")
    )
    assert measured.wait() == drawn.wait() == 0
    assert measured.result()["report"] == drawn.result()["report"] == trained["report"]
    assert measured.result()["measurements"] == trained["measurements"]
    assert Path(trained["report"]).read_text().startswith("<!")
    assert drawn.result()["samples"] == trained["samples"] == str(tmp_path / "run" / "samples")


def test_another_config_in_the_workdir_is_told_apart(tmp_path):
    few = (CONFIG, "--config.eval.metrics=()", f"--workdir={tmp_path / 'run'}")
    assert launcher.start(*few, "--config.train.steps=3", log=tmp_path / "log").wait() == 0
    before = (tmp_path / "run" / "config.json").read_text()
    for mode in ("train", "eval", "sample"):
        run = launcher.start(*few, "--config.network.width=16", f"--mode={mode}", log=tmp_path / "log")
        assert run.wait() == USAGE
        assert run.err.read_text().count("\n") == 1
        assert "another config: network.width 8 -> 16; " in run.err.read_text()
    assert (tmp_path / "run" / "config.json").read_text() == before
    run = launcher.start(
        *few, "--config.network.width=16", "--config.train.steps=2", "--overwrite", log=tmp_path / "log"
    )
    assert run.wait() == 0
    assert run.result()["step"] == 2
    assert [p.name for p in (tmp_path / "run" / "checkpoints").iterdir()] == ["2"]


def test_ctrl_c_outside_of_training_is_one_line(capsys):
    with pytest.raises(SystemExit) as ended, command_line.one_line_errors():
        raise KeyboardInterrupt
    assert ended.value.code == 130
    assert capsys.readouterr().err == "interrupted: the same command goes on from the last checkpoint\n"


def test_compiled_programs_are_kept_where_nobody_says_otherwise():
    before = jax.config.jax_compilation_cache_dir
    command_line.keep_compiled("/other")
    assert jax.config.jax_compilation_cache_dir == before
    try:
        found = []
        for folder in ("", base.get_config().compilation_cache):
            jax.config.update("jax_compilation_cache_dir", None)
            command_line.keep_compiled(folder)
            found.append(jax.config.jax_compilation_cache_dir)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    assert found == [None, str(Path.home() / ".cache" / "flowmaps")]


def test_a_gpu_that_jax_does_not_see_is_not_passed_over(tmp_path, monkeypatch):
    """Unless the CPU was asked for."""
    monkeypatch.setattr(command_line, "DEVICES", tmp_path)
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    asked = jax.config.jax_platforms
    try:
        jax.config.update("jax_platforms", None)
        command_line.check_platform()
        (tmp_path / "nvidia0").touch()
        with pytest.raises(UsageError, match=r"that this jax does not see: pip install 'jax\[cuda13\]', or say JAX_PL"):
            command_line.check_platform()
        jax.config.update("jax_platforms", "cpu")
        command_line.check_platform()
    finally:
        jax.config.update("jax_platforms", asked)


def test_a_full_disk_is_one_line(capsys):
    full = OSError(errno.ENOSPC, "No space left on device", "/runs/a/samples/.grid.png.1")
    with pytest.raises(SystemExit) as ended, command_line.one_line_errors():
        raise full
    assert ended.value.code == USAGE
    assert capsys.readouterr().err.startswith("no room is left on the disk at /runs/a/samples/.grid.png.1: make some")
    with pytest.raises(PermissionError), command_line.one_line_errors():
        raise PermissionError(errno.EACCES, "no")


def test_training_that_stays_not_finite_exits_with_its_own_code(tmp_path):
    steep = ("--config.optimizer.learning_rate=1e38", "--config.optimizer.clip_norm=0", "--config.train.max_skipped=5")
    run = launcher.start(CONFIG, *steep, f"--workdir={tmp_path / 'run'}", log=tmp_path / "log")
    assert run.wait() == NON_FINITE
    assert "updates in a row were not finite and were skipped" in run.err.read_text().splitlines()[-1]
    assert "Traceback" not in run.err.read_text()


@pytest.mark.parametrize(
    "config, folder",
    [("configs/a.py", "runs/a"), ("configs/a.py:long", "runs/a_long"), ("/x/y/a_b.py", "runs/a_b"), ("a.py", "runs/a")],
)
def test_the_workdir_is_named_after_config_and_variant(config, folder):
    import main

    assert main.default_workdir(config) == folder


@pytest.mark.parametrize(
    "arguments, fields",
    [
        (
            ["main.py", "--config=a.py", "--config.train.steps=5", "--config.eval.steps", "3"],
            ["train.steps", "eval.steps"],
        ),
        (["main.py", "-config=a.py", "--noconfig.network.residual"], ["network.residual"]),
        (["main.py", "--configure.x=3", "--mode=train"], []),
    ],
)
def test_fields_set_on_the_command_line(arguments, fields):
    assert command_line.overridden(arguments) == fields


def test_the_variant_reaches_the_config():
    config = command_line.default_config(["main.py", f"{CONFIG}:eight", "--mode=train"])
    assert config.train.batch_size == 64
    assert command_line.default_config(["main.py", "--config", launcher.TINY]).train.batch_size == 8
    assert command_line.default_config(["main.py", "--help"]) is None


def test_a_config_without_variants_says_so(tmp_path):
    (tmp_path / "plain.py").write_text("def get_config():\n    return None\n")
    with pytest.raises(UsageError, match="has no variants: leave out ':long'"):
        command_line.default_config(["main.py", f"--config={tmp_path / 'plain.py'}:long"])
