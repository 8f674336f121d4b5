"""What happens to a run from outside, in processes of its own: kill -9 at any moment, SIGTERM, Ctrl-C."""

import json
import os
import random
import signal
import time
from pathlib import Path

import launcher
import numpy as np
import pytest
import tiny
from traces import assert_same, finished, reached, saved

from flowmaps import data, experiment, generate, pairs

CONFIG = f"--config={launcher.TINY}"


def unfinished(workdir: Path) -> list[str]:
    return [p.name for p in (workdir / "checkpoints").glob("*tmp*")]


@pytest.mark.long
def test_kill_9_at_twenty_moments_loses_only_the_steps_since_the_last_save(tmp_path):
    """Half of the moments are drawn blindly from the start of the program on, half from the middle of a save."""
    every, moments = 10, random.Random(0)
    arguments = (CONFIG, f"--config.train.checkpoint_every={every}", "--config.eval.metrics=()")
    endless = (*arguments, "--config.train.steps=1000000", f"--workdir={tmp_path / 'killed'}")
    before, cut_short = [], 0
    for number in range(20):
        run = launcher.start(*endless, log=tmp_path / "log")
        if number % 2:
            launcher.wait_for(lambda last=before[-1:]: finished(tmp_path / "killed")[-1:] > last, run)
            launcher.wait_for(lambda: unfinished(tmp_path / "killed"), run)
        else:
            time.sleep(moments.uniform(0.2, 4))
        run.process.kill()
        assert run.wait() == -signal.SIGKILL
        cut_short += bool(unfinished(tmp_path / "killed"))
        steps = finished(tmp_path / "killed")
        if steps:
            step, _, data = saved(tmp_path / "killed")
            assert step == steps[-1] and data == {"position": step}
            assert step >= max(before, default=0)
            assert reached(tmp_path / "killed") <= step + 2 * every  # one save may have been on its way
        before = steps
    assert cut_short >= 5
    last = before[-1] + 3
    results = {}
    for name in ("killed", "whole"):
        run = launcher.start(
            *arguments, f"--config.train.steps={last}", f"--workdir={tmp_path / name}", log=tmp_path / "log"
        )
        assert run.wait() == 0
        results[name] = saved(tmp_path / name)
        assert not unfinished(tmp_path / name)
    assert results["killed"][0] == results["whole"][0] == last
    assert_same(results["killed"], results["whole"])


def test_sigterm_saves_and_exits_cleanly_and_the_same_command_goes_on(tmp_path):
    arguments = (CONFIG, "--config.eval.metrics=()", "--config.train.checkpoint_every=1000000")
    parts = (*arguments, f"--workdir={tmp_path / 'parts'}")
    run = launcher.start(*parts, "--config.train.steps=1000000", log=tmp_path / "log")
    launcher.wait_for(lambda: reached(tmp_path / "parts") > 20, run)
    run.process.terminate()
    assert run.wait() == 0
    step = run.result()["step"]
    assert run.result() == {"mode": "train", "workdir": str(tmp_path / "parts"), "step": step, "terminated": True}
    assert finished(tmp_path / "parts") == [step]
    for name in ("parts", "whole"):
        workdir = f"--workdir={tmp_path / name}"
        assert (
            launcher.start(*arguments, f"--config.train.steps={step + 10}", workdir, log=tmp_path / "log").wait() == 0
        )
    assert_same(saved(tmp_path / "parts"), saved(tmp_path / "whole"))


def test_sigterm_while_a_finished_run_is_evaluated_loses_nothing(tmp_path):
    run = launcher.start(CONFIG, f"--workdir={tmp_path / 'run'}", log=tmp_path / "log")
    launcher.wait_for(lambda: finished(tmp_path / "run")[-1:] == [40], run)
    run.process.terminate()
    assert run.wait() == 0
    assert run.result()["step"] == 40 and run.result()["terminated"]


@pytest.mark.parametrize("presses", [1, 3])
def test_ctrl_c_saves_and_exits_cleanly_however_often_it_is_pressed(tmp_path, presses):
    endless = (CONFIG, "--config.eval.metrics=()", "--config.train.steps=1000000", f"--workdir={tmp_path / 'run'}")
    run = launcher.start(*endless, log=tmp_path / "log")
    launcher.wait_for(lambda: reached(tmp_path / "run") > 20, run)
    for _ in range(presses):
        os.kill(run.process.pid, signal.SIGINT)
    assert run.wait() == 0
    step, said = run.result()["step"], run.err.read_text()
    assert run.result()["terminated"] and finished(tmp_path / "run")[-1] == step
    assert "Traceback" not in said
    assert said.splitlines()[-1].endswith(f"told to end: saved at step {step}, from which the same command goes on")


def staged(directory: Path) -> tuple[str, ...]:
    """The arguments of a run in stages of 20, 20 and 40 steps, from 8 steps to 1, from a model of its kind."""
    start = launcher.start(
        CONFIG, "--config.eval.metrics=()", f"--workdir={directory / 'start'}", log=directory / "log"
    )
    assert start.wait() == 0
    return (f"--config={launcher.TINY}:stages", f"--config.init_from={directory / 'start'}")


def test_kill_9_within_a_stage_and_at_its_end_changes_nothing(tmp_path):
    """Checkpoints lie within stages, one at each stage's end; a killed run goes on from either to the same weights."""
    arguments = staged(tmp_path)
    run = launcher.start(*arguments, f"--workdir={tmp_path / 'whole'}", log=tmp_path / "log")
    assert run.wait() == 0
    parts = (*arguments, f"--workdir={tmp_path / 'killed'}")
    for last in (20, 30, 50):
        run = launcher.start(*parts, log=tmp_path / "log")
        launcher.wait_for(lambda last=last: last in finished(tmp_path / "killed"), run)
        run.process.kill()
        assert run.wait() == -signal.SIGKILL
    assert launcher.start(*parts, log=tmp_path / "log").wait() == 0
    config = tiny.get_config("stages")
    config.init_from = str(tmp_path / "start")
    whole, killed = (saved(tmp_path / name, config=config) for name in ("whole", "killed"))
    assert whole[0] == killed[0] == 80
    assert_same(whole, killed)
    assert {20, 40, 80} <= set(finished(tmp_path / "killed"))
    lines = [json.loads(line) for line in (tmp_path / "killed" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 81))
    assert [line["sampling_steps"] for line in lines] == [4] * 20 + [2] * 20 + [1] * 40


def test_kill_9_while_pairs_are_made_loses_and_doubles_none(tmp_path):
    run = launcher.start(CONFIG, "--config.eval.metrics=()", f"--workdir={tmp_path / 'run'}", log=tmp_path / "log")
    assert run.wait() == 0
    folder = tmp_path / "run" / "pairs"
    files = [f"pairs-{number:05d}-of-00005.array_record" for number in range(5)]
    make = (CONFIG, "--mode=sample", "--config.sample.pairs=40000", f"--workdir={tmp_path / 'run'}")
    run = launcher.start(*make, log=tmp_path / "log")
    launcher.wait_for(lambda: (folder / files[1]).exists(), run)
    run.process.kill()
    assert run.wait() == -signal.SIGKILL
    before = {file.name: file.stat().st_mtime_ns for file in folder.glob("*.array_record")}
    assert 2 <= len(before) < 5
    again = launcher.start(*make, log=tmp_path / "log")
    assert again.wait() == 0
    assert again.result()["samples"] == str(folder)
    assert sorted(file.name for file in folder.iterdir()) == [*files, "pairs.json"]
    assert all((folder / name).stat().st_mtime_ns == written for name, written in before.items())
    exp = experiment.build(tiny.get_config(), training=False)
    found = data.pairs(str(folder), exp.dataset).batch(np.arange(40_000))
    noise = generate.noise(exp, pairs.pair_keys(0, np.arange(40_000)))
    np.testing.assert_allclose(found["x0"], noise, rtol=1e-6)
