"""What happens to a run from outside, in processes of its own: kill -9 at any moment, SIGTERM, several processes."""

import json
import os
import random
import shutil
import signal
import socket
import time
from pathlib import Path

import jax
import launcher
import numpy as np
import pytest
import tiny
from ml_collections import ConfigDict

from flowmaps import data, experiment, generate, pairs
from flowmaps.checkpoints import Checkpoints

CONFIG = f"--config={launcher.TINY}"


def finished(workdir: Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit())


def unfinished(workdir: Path) -> list[str]:
    return [p.name for p in (workdir / "checkpoints").glob("*tmp*")]


def saved(workdir: Path, step: int | None = None, config: ConfigDict | None = None) -> tuple[int, object, dict]:
    """Step, state and the loader's position of a checkpoint, verified against its checksums."""
    config = tiny.get_config() if config is None else config
    config.mesh.data = 1
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        step, state, data, _ = checkpoints.restore(experiment.abstract_state(experiment.build(config)), step)
    return step, jax.device_get(state), data


def assert_same(a, b, **tolerance) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **{"rtol": 0, **tolerance}), a, b)


def reached(workdir: Path) -> int:
    """The last step that a run wrote down."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines() if (workdir / "metrics.jsonl").exists() else []
    return max((int(line.split(",")[0].removeprefix('{"step": ')) for line in lines if line.endswith("}")), default=0)


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


def start_two(*arguments: str, log: Path, second: tuple[str, ...] = ()) -> list[launcher.Run]:
    """Two processes of one run, joined by gloo; `second`: what only the second is told."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        address = f"localhost:{free.getsockname()[1]}"
    shared = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    return [
        launcher.start(*told, log=Path(f"{log}{i}"), environment={**shared, "JAX_PROCESS_ID": str(i)})
        for i, told in enumerate((arguments, (*arguments, *second)))
    ]


def test_two_processes_train_as_one_and_one_goes_on_for_two(tmp_path):
    """To rounding: the sum over devices has another order than within one."""
    arguments = (CONFIG, "--config.eval.metrics=()", "--config.train.checkpoint_every=5")
    one, two = f"--workdir={tmp_path / 'one'}", f"--workdir={tmp_path / 'two'}"
    runs = start_two(*arguments, two, "--config.train.steps=10", log=tmp_path / "log")
    assert [run.wait() for run in runs] == [0, 0]
    assert [run.result()["step"] for run in runs] == [10, 10]
    said = runs[0].err.read_text()
    assert "platform cpu, 2 devices of kind cpu, 2 processes; global batch 8 = 2 hosts x 1 devices x 4" in said
    assert "step 10 of 10" in said and "step 10 of 10" not in runs[1].err.read_text()
    assert reached(tmp_path / "two") == 10
    assert (
        launcher.start(*arguments, one, "--config.train.steps=20", "--config.train.keep=9", log=tmp_path / "log").wait()
        == 0
    )
    assert_same(saved(tmp_path / "two", 10), saved(tmp_path / "one", 10), rtol=1e-5, atol=1e-7)
    assert launcher.start(*arguments, two, "--config.train.steps=20", log=tmp_path / "log").wait() == 0
    assert_same(saved(tmp_path / "two", 20), saved(tmp_path / "one", 20), rtol=1e-5, atol=1e-7)


def test_sigterm_to_one_of_two_processes_stops_both_at_one_step(tmp_path):
    arguments = (CONFIG, f"--workdir={tmp_path / 'run'}", "--config.train.steps=1000000")
    runs = start_two(*arguments, "--config.train.checkpoint_every=1000000", log=tmp_path / "log")
    launcher.wait_for(lambda: reached(tmp_path / "run") > 5, runs[0])
    os.kill(runs[1].process.pid, signal.SIGTERM)
    assert [run.wait() for run in runs] == [0, 0]
    first, second = (run.result() for run in runs)
    assert first == second and first["terminated"]
    assert finished(tmp_path / "run") == [first["step"]]


def test_two_processes_with_different_configs_refuse_to_start(tmp_path):
    runs = start_two(CONFIG, f"--workdir={tmp_path / 'run'}", log=tmp_path / "log", second=("--config.seed=1",))
    for run in runs:
        assert run.wait() == 1
        assert "the processes have different configs or data" in run.err.read_text()
    assert not (tmp_path / "run").exists()


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


def test_two_processes_make_the_pairs_of_one(tmp_path):
    """By turns, from what the first of them finds missing."""
    run = launcher.start(CONFIG, "--config.eval.metrics=()", f"--workdir={tmp_path / 'one'}", log=tmp_path / "log")
    assert run.wait() == 0
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    make = (CONFIG, "--mode=sample", "--config.sample.pairs=20000")
    assert launcher.start(*make, f"--workdir={tmp_path / 'one'}", log=tmp_path / "log").wait() == 0
    runs = start_two(*make, f"--workdir={tmp_path / 'two'}", log=tmp_path / "log")
    assert [run.wait() for run in runs] == [0, 0]
    dataset = experiment.build(tiny.get_config(), training=False).dataset
    one, two = (data.pairs(str(tmp_path / name / "pairs"), dataset).batch(np.arange(20_000)) for name in ("one", "two"))
    assert_same(one, two, rtol=1e-5, atol=1e-6)
