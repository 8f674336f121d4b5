"""Two processes of one run, joined by gloo: the same numbers as one, and no waiting for one that failed."""

import os
import shutil
import signal
import socket
from pathlib import Path

import launcher
import numpy as np
import pytest
import tiny
from traces import assert_same, finished, reached, saved

from flowmaps import data, experiment, processes

CONFIG = f"--config={launcher.TINY}"


def free_address() -> str:
    """A port of this machine that nobody uses."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return f"localhost:{free.getsockname()[1]}"


def start_two(*arguments: str, log: Path, second: tuple[str, ...] = (), devices: int = 1) -> list[launcher.Run]:
    """Two processes of one run, each of so many devices, joined by gloo; `second`: what only the second is told."""
    shared = {"JAX_COORDINATOR_ADDRESS": free_address(), "JAX_NUM_PROCESSES": "2"}
    return [
        launcher.start(*told, log=Path(f"{log}{i}"), devices=devices, environment={**shared, "JAX_PROCESS_ID": str(i)})
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


def test_two_processes_of_four_devices_are_one_of_eight(tmp_path):
    """Weights cut over pairs of devices, the batch over all: training, measurements and samples are the same to
    rounding, and one device goes on from what they saved."""
    wide = ("--config.network.width=64", "--config.network.depth=2", "--config.mesh.fsdp=2")
    arguments = (f"{CONFIG}:eight", *wide, "--config.train.steps=10")
    runs = start_two(*arguments, f"--workdir={tmp_path / 'two'}", log=tmp_path / "two", devices=4)
    assert [run.wait() for run in runs] == [0, 0]
    assert "global batch 64 = 2 hosts x 4 devices x 8 per device" in runs[0].err.read_text()
    run = launcher.start(*arguments, f"--workdir={tmp_path / 'one'}", log=tmp_path / "one", devices=8)
    assert run.wait() == 0
    config = tiny.get_config("eight")
    config.network.update(width=64, depth=2)
    one, two = (saved(tmp_path / name, 10, config) for name in ("one", "two"))
    assert_same(two, one, rtol=1e-4, atol=1e-6)
    made = [np.load(tmp_path / name / "samples" / "samples.npz")["arr_0"] for name in ("one", "two")]
    np.testing.assert_allclose(*made, rtol=1e-4, atol=1e-5)
    for first in runs:
        assert first.result()["measurements"] == pytest.approx(run.result()["measurements"], rel=1e-4)
    alone = (*arguments[:-2], "--config.train.steps=12", "--config.eval.metrics=()")
    for name in ("one", "two"):
        assert launcher.start(*alone, f"--workdir={tmp_path / name}", log=tmp_path / name).wait() == 0
    assert_same(saved(tmp_path / "two", 12, config), saved(tmp_path / "one", 12, config), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dies", [0, 1])
def test_where_one_process_dies_the_other_ends_with_a_message(tmp_path, dies):
    arguments = (CONFIG, f"--workdir={tmp_path / 'run'}", "--config.train.steps=1000000")
    runs = start_two(*arguments, log=tmp_path / "log")
    launcher.wait_for(lambda: reached(tmp_path / "run") > 5, runs[0])
    runs[dies].process.kill()
    assert runs[1 - dies].wait(60) == processes.FAILED
    last = runs[1 - dies].err.read_text().splitlines()[-1]
    assert last.startswith(f"process {1 - dies}: a computation of all processes failed (")
    assert last.endswith("the same command goes on from the last checkpoint")


@pytest.mark.long
def test_where_one_process_cannot_start_it_says_why_and_the_other_does_not_wait_for_it(tmp_path):
    runs = start_two(CONFIG, f"--workdir={tmp_path / 'run'}", log=tmp_path / "log", second=("--config.mesh.data=7",))
    assert [run.wait(60) for run in runs] == [processes.FAILED, 1]
    assert runs[1].err.read_text().splitlines()[-1].startswith("mesh.data=7 times mesh.fsdp=1 takes 7 devices")
    assert not (tmp_path / "run").exists()


def test_processes_that_do_not_come_are_named(tmp_path):
    variables = {"JAX_COORDINATOR_ADDRESS": free_address(), "JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": "0"}
    alone = (CONFIG, f"--workdir={tmp_path / 'run'}", "--distributed_timeout=2")
    run = launcher.start(*alone, log=tmp_path / "log", environment=variables)
    assert run.wait(60) == processes.FAILED
    waiting, end = run.err.read_text().splitlines()
    where = f"at {variables['JAX_COORDINATOR_ADDRESS']}, this one as process 0 of 2"
    assert waiting.endswith(f"waiting up to 2 s for the other processes of this run, {where}")
    assert end.startswith(f"the processes of this run did not all come within 2 s, {where}: start the command on every")
