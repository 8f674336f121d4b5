"""The training loop: an interrupted run ends as one that was not; what is logged, kept and refused."""

import json
import os
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny
from absl import logging

from configs import base
from flowmaps import evaluate, experiment, train
from flowmaps.checkpoints import Checkpoints
from flowmaps.errors import MissingError, NonFiniteError, UsageError


def make_config(**changed):
    config = tiny.get_config("eight")
    config.train.update(log_every=5, steps=20, checkpoint_every=5)
    config.update_from_flattened_dict(changed)
    return config.lock()


@pytest.fixture(autouse=True)
def no_conclusion(monkeypatch):
    """What follows the training has tests of its own."""
    monkeypatch.setattr(train, "conclude", lambda config, workdir: {})


@pytest.fixture
def log(monkeypatch):
    lines = []
    monkeypatch.setattr(logging, "info", lambda text, *values: lines.append(text % values if values else str(text)))
    return lines


def interrupt(monkeypatch, step: int) -> None:
    """SIGTERM comes right before this step, while the batch after its own is made."""
    global_batch, taken = experiment.global_batch, []

    def counted(exp, batch):
        taken.append(batch)
        if len(taken) == step + 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return global_batch(exp, batch)

    monkeypatch.setattr(experiment, "global_batch", counted)


def saved(config, workdir: Path, step: int | None = None):
    """The state and the loader's position in a checkpoint."""
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        _, state, data, _ = checkpoints.restore(experiment.abstract_state(experiment.build(config)), step)
    return jax.device_get(state), data


def losses(workdir: Path) -> list[dict]:
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    speeds = ("steps_per_second", "examples_per_second")
    return [{name: value for name, value in line.items() if name not in speeds} for line in lines]


@pytest.mark.parametrize("method", [{}, {"optimizer.name": "adamw", "train.ema": (0.9, 0.99), "mesh.fsdp": 2}])
def test_an_interrupted_run_ends_as_one_that_was_not_to_the_bit(tmp_path, monkeypatch, method):
    config = make_config(**method)
    whole = train.run(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        interrupt(patch, step=10)
        assert train.run(config, tmp_path / "parts") == {
            **whole,
            "workdir": str(tmp_path / "parts"),
            "step": 10,
            "terminated": True,
        }
    assert saved(config, tmp_path / "parts")[1] == {"position": 10}
    assert train.run(config, tmp_path / "parts")["step"] == whole["step"] == 20
    state, position = saved(config, tmp_path / "whole")
    again, position_again = saved(config, tmp_path / "parts")
    assert position == position_again == {"position": 20}
    assert jax.tree.structure(state) == jax.tree.structure(again)
    assert jax.tree.all(jax.tree.map(np.array_equal, state, again))
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")


def test_a_longer_run_goes_on_and_a_shorter_one_is_refused(tmp_path):
    """The record of what was trained stays as it is; the same length again trains nothing."""
    assert train.run(make_config(), tmp_path)["step"] == 20
    written = (tmp_path / "config.json").read_text()
    with pytest.raises(UsageError, match=r"has taken 20 steps, more than train\.steps=10: there is nothing to train"):
        train.run(make_config(**{"train.steps": 10}), tmp_path)
    assert (tmp_path / "config.json").read_text() == written
    assert train.run(make_config(), tmp_path) == {"mode": "train", "workdir": str(tmp_path), "step": 20}
    assert train.run(make_config(**{"train.steps": 25}), tmp_path)["step"] == 25
    assert [line["step"] for line in losses(tmp_path)] == [5, 10, 15, 20, 25]
    assert json.loads((tmp_path / "config.json").read_text())["train"]["steps"] == 25


def test_a_checkpoint_tells_what_made_it(tmp_path):
    config = make_config()
    train.run(config, tmp_path)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [10, 15, 20]
        meta = checkpoints.meta(20)
    assert meta["config"] == json.loads((tmp_path / "config.json").read_text())
    assert meta["versions"]["jax"] == jax.__version__ and "commit" in meta


def test_the_log_begins_with_the_devices_and_counts_the_time_left(tmp_path, log):
    train.run(make_config(), tmp_path)
    assert log[0] == (
        "platform cpu, 8 devices of kind cpu, 1 processes; global batch 64 = 1 hosts x 8 devices x 8 per device"
    )
    assert any("student/Dense_0/kernel" in line for line in log)
    steps = [line for line in log if line.startswith("step ") and " of 20: loss " in line]
    assert len(steps) == 4 and all(line.endswith(" left") for line in steps)


def test_the_best_checkpoint_by_score_is_kept(tmp_path, monkeypatch):
    worth = iter([3.0, 1.0, 2.0, 4.0])

    def measure(exp, params, program, judge, *, seed, step_counts):
        assert step_counts == exp.config.eval.steps
        assert jax.tree.structure(params) == jax.tree.structure(experiment.abstract_state(exp).params["student"])
        return [{"metric": "sliced_w2", "steps": 1, "value": next(worth), "better": "lower", "reference": None}]

    monkeypatch.setattr(evaluate, "measure", measure)
    options = {"train.eval_every": 5, "train.keep": 1, "train.checkpoint_every": 100, "eval.best_metric": "sliced_w2/1"}
    train.run(make_config(**options), tmp_path)
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [10, 20]
        assert checkpoints.meta(10)["score"] == 1.0
    measured = {line["step"]: line["eval/sliced_w2/1"] for line in losses(tmp_path) if "eval/sliced_w2/1" in line}
    assert measured == {5: 3.0, 10: 1.0, 15: 2.0, 20: 4.0}


def test_training_measures_what_evaluation_measures(tmp_path):
    config = make_config(**{"train.eval_every": 20, "eval.steps": (1,)})
    train.run(config, tmp_path)
    (row,) = evaluate.run(config, tmp_path)
    assert losses(tmp_path)[-1]["eval/sliced_w2/1"] == row["value"]


@pytest.mark.parametrize("better, value, expected", [("lower", 2.0, 2.0), ("higher", 2.0, -2.0), ("one", 0.4, 0.6)])
def test_lower_scores_are_better(better, value, expected):
    rows = [
        {"metric": "a", "steps": 1, "value": 9.0, "better": "lower"},
        {"metric": "a", "steps": 4, "value": value, "better": better},
    ]
    assert train.score(rows, "a/4") == pytest.approx(expected)
    assert train.score(rows, "") is None and train.score([{**rows[0], "value": None}], "a/1") is None


def test_the_headline_is_of_the_first_seed():
    rows = [
        {"metric": "a", "steps": steps, "value": value, "reference": reference}
        for steps, value, reference in [(1, 1.0, None), (2, 2.0, None), (1, 3.0, None), (None, 4.0, "gaussian")]
    ]
    assert train.headline(rows) == {"a/1": 1.0, "a/2": 2.0}


def test_logged_means_leave_out_what_is_not_there():
    recent = [
        {"skipped": s, "critic/loss": c, "loss": x}
        for s, c, x in [(0, np.nan, 1.0), (1, 4.0, np.inf), (1, np.nan, 2.0)]
    ]
    assert train.averages(recent) == {"loss": 1.5, "critic/loss": 4.0, "skipped": 1.0}
    assert next(iter(train.averages(recent))) == "loss"
    assert np.isnan(train.averages(recent[:1])["critic/loss"])


def test_rates_and_counts_are_logged_as_they_were_last_of_any_player():
    """A rate is that of the player's last turn."""
    recent = [
        {"critic/learning_rate": rate, "critic/skipped": s}
        for rate, s in [(np.nan, 0), (0.3, 1), (0.2, 2), (np.nan, 2)]
    ]
    assert train.averages(recent) == {"critic/learning_rate": 0.2, "critic/skipped": 2.0}
    assert np.isnan(train.averages(recent[:1])["critic/learning_rate"])


def test_updates_that_stay_not_finite_end_the_run(tmp_path):
    options = {"optimizer.learning_rate": 1e38, "optimizer.clip_norm": 0.0, "train.max_skipped": 4, "train.steps": 100}
    with pytest.raises(NonFiniteError, match=r"step (8|12): \d+ updates in a row were not finite"):
        train.run(make_config(**options), tmp_path)


def test_a_run_of_bad_updates_counts_wherever_it_lies(tmp_path, monkeypatch):
    """Twenty in a row that end before the step at which one looks, and four at the end of a run, stop it as well."""
    bad, taken, global_batch = range(5, 12), [], experiment.global_batch

    def poisoned(exp, local):
        taken.append(local)
        return global_batch(exp, {**local, "x1": local["x1"] * np.float32(np.nan)} if len(taken) in bad else local)

    monkeypatch.setattr(experiment, "global_batch", poisoned)
    with pytest.raises(NonFiniteError, match="step 12: 7 updates in a row"):
        train.run(make_config(**{"train.max_skipped": 6, "train.steps": 30}), tmp_path / "inside")
    taken, bad = [], range(15, 19)
    with pytest.raises(NonFiniteError, match="step 18: 4 updates in a row"):
        train.run(make_config(**{"train.max_skipped": 4, "train.steps": 18}), tmp_path / "end")
    taken, bad = [], range(2, 5)
    assert train.run(make_config(**{"train.max_skipped": 4, "train.steps": 8}), tmp_path / "short")["step"] == 8


def test_what_is_not_finite_is_logged_as_such(tmp_path, monkeypatch):
    """An evaluation of a run that has lost its way is no reason to end it."""
    row = {"metric": "sliced_w2", "steps": 1, "value": None, "reference": None, "better": "lower"}
    monkeypatch.setattr(evaluate, "measure", lambda *_, **__: [row])
    train.run(make_config(**{"train.eval_every": 10}), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["eval/sliced_w2/1"] for line in lines if "eval/sliced_w2/1" in line] == [None, None]


def test_a_run_goes_on_with_the_data_it_began_with_alone(tmp_path):
    arrays, workdir = tmp_path / "a.npz", tmp_path / "run"
    images = np.random.default_rng(0).integers(0, 255, (32, 2, 2, 1), np.uint8)
    np.savez(arrays, images=images)
    config = make_config()
    config.data = base.part(base.data, "arrays", path=str(arrays))
    config.eval.metrics = ()
    train.run(config, workdir)
    config.train.steps, config.data.path = 21, str(arrays.rename(tmp_path / "moved.npz"))
    assert train.run(config, workdir)["step"] == 21
    np.savez(config.data.path, images=255 - images)
    config.train.steps = 22
    with pytest.raises(UsageError, match=r"the data have the fingerprint .* those that this run began with"):
        train.run(config, workdir)


def test_a_broken_checkpoint_costs_the_steps_since_the_one_before(tmp_path, monkeypatch):
    config = make_config()
    train.run(config, tmp_path)
    whole, _ = saved(config, tmp_path)
    for path in (tmp_path / "checkpoints" / "20" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"broken")
    lines = []
    monkeypatch.setattr(logging, "error", lambda text, *values: lines.append(text % values))
    assert train.run(config, tmp_path)["step"] == 20
    assert len(lines) == 1 and "checkpoint 20 cannot be read, falling back to the one before" in lines[0]
    again, _ = saved(config, tmp_path, 20)
    assert jax.tree.all(jax.tree.map(np.array_equal, whole, again))
    assert [line["step"] for line in losses(tmp_path)] == [5, 10, 15, 20]


@pytest.mark.parametrize(
    "changed, error, text",
    [
        ({"train.log_every": 0}, UsageError, "train.log_every=0 must be at least 1"),
        ({"train.keep_best": -1}, UsageError, "train.keep_best=-1 must be at least 0"),
        ({"train.batch_size": 12}, UsageError, "12 is not a multiple of 8"),
        ({"eval.steps": (0,)}, UsageError, "0 steps"),
        ({"sample.sampler": "nosuch"}, UsageError, "nosuch"),
        ({"eval.best_metric": "sliced_w2/9", "train.eval_every": 1}, UsageError, "sliced_w2/9"),
        ({"init_from": "nowhere"}, MissingError, "nowhere"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path, changed, error, text):
    with pytest.raises(error, match=text):
        train.run(make_config(**changed), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_another_config_is_refused_and_replaced_on_demand(tmp_path):
    train.run(make_config(), tmp_path)
    other = make_config(seed=1, **{"train.steps": 5})
    with pytest.raises(UsageError, match=r"another config: seed 0 -> 1; give the values .*--overwrite"):
        train.run(other, tmp_path)
    assert train.run(other, tmp_path, overwrite=True)["step"] == 5
    with Checkpoints(tmp_path / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps() == [5]
    assert train.run(other, tmp_path, overwrite=True)["step"] == 5
    assert [line["step"] for line in losses(tmp_path)] == [5]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_answered_only_meanwhile(number):
    received = []
    before = signal.getsignal(number)
    with train.on_signals(lambda *_: received.append(1)):
        os.kill(os.getpid(), number)
    assert received == [1] and signal.getsignal(number) == before


def test_the_log_tells_steps_and_examples_a_second(tmp_path, caplog):
    caplog.set_level("INFO")
    config = make_config()
    train.run(config, tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line["examples_per_second"] == line["steps_per_second"] * config.train.batch_size > 0
    assert f"examples/s {lines[-1]['examples_per_second']:.4g}" in caplog.text
