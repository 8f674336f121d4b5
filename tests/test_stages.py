"""Runs in stages around their training: which checkpoint is measured, drawn and compared with how many steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_runs

from flowmaps import compare, evaluate, experiment, generate, pairs, sample, train
from flowmaps.checkpoints import Checkpoints
from flowmaps.errors import MissingError, UsageError

ENDS = {4: 4, 2: 8, 1: 16}
"""Number of sampling steps -> the end of its stage, of 16 steps of training from 8 steps to 1."""


def staged(start, **fields):
    config = small_runs.plane("progressive_distillation", **fields)
    chosen = {"method.first": 8, "method.longer": 1, "train.steps": 16, "train.ema": (), "eval.ema": (-1,)}
    config.update_from_flattened_dict({**chosen, "init_from": str(start), "mesh.data": 1, **fields})
    config.eval.steps = config.sample.steps = fields.get("steps", (1, 2, 4))
    return config


def made(tmp_path, steps=(4, 8, 16)):
    """A run whose student at checkpoint k moves every point by k in each direction."""
    small_runs.save(small_runs.plane("flow_matching"), tmp_path / "start")
    config = staged(tmp_path / "start")
    exp = small_runs.save(config, tmp_path / "run", steps=steps, scores=[None] * len(steps))
    state = experiment.init(exp)
    bias = f"Dense_{config.network.depth}"
    with Checkpoints(tmp_path / "moved", keep=len(steps)) as checkpoints:
        for step in steps:
            params = small_runs.zeros(exp)
            params[bias]["bias"] = jnp.full(2, step / config.network.scale)
            moved = state.replace(params={**state.params, "student": params})
            checkpoints.save(step, moved, {"position": step}, {}, wait=True)
    (tmp_path / "run" / "checkpoints").rename(tmp_path / "old")
    (tmp_path / "moved").rename(tmp_path / "run" / "checkpoints")
    return config, exp, tmp_path / "run"


def test_each_number_of_steps_has_the_student_of_its_own_stage(tmp_path):
    config, exp, workdir = made(tmp_path)
    noise = np.asarray(generate.noise(exp, generate.sample_keys(0, np.arange(24))))
    for steps, params in sample.parameters(exp, workdir).items():
        drawn = sample.draw(exp, sample.check(exp), params, steps)
        np.testing.assert_allclose(drawn.x, noise + ENDS[steps], rtol=1e-5)
    rows = evaluate.run(config, workdir)
    found = {row["steps"]: row["checkpoint"] for row in rows if row["reference"] is None}
    assert found == ENDS
    run = compare.read(workdir)
    assert run.step == 16 and {row["steps"]: row["checkpoint"] for row in run.rows} == ENDS
    assert compare.cost([run]).steps == 16


def test_of_a_run_under_way_the_stages_that_have_begun_are_measured(tmp_path):
    _, exp, workdir = made(tmp_path, steps=(4, 6))
    found = {count: s.step for s in evaluate.students(exp, workdir) for count in s.step_counts}
    assert found == {4: 4, 2: 6}
    assert set(sample.parameters(exp, workdir)) == {2, 4}
    only = experiment.build(staged(tmp_path / "start", steps=(1,)), training=False)
    with pytest.raises(MissingError, match=r"has trained none of the students of sample\.steps=\(1,\) yet"):
        sample.parameters(only, workdir)
    with pytest.raises(MissingError, match="has not trained its student of 1 steps yet"):
        pairs.run(only, workdir)


def test_a_number_that_no_stage_trains_is_refused(tmp_path):
    _, _, workdir = made(tmp_path)
    with pytest.raises(UsageError, match=r"eval\.steps has 3, and the stages of this run train students of 4, 2, 1"):
        evaluate.run(staged(tmp_path / "start", steps=(3,)), workdir)


def test_training_in_stages_keeps_their_ends_and_goes_on_with_the_same_number_of_steps(tmp_path):
    small_runs.save(small_runs.plane("flow_matching"), tmp_path / "start")
    fields = {"train.keep": 1, "eval.metrics": (), "train.batch_size": 8, "sample.num_samples": 8}
    train.run(staged(tmp_path / "start", **fields), tmp_path / "run")
    with Checkpoints(tmp_path / "run" / "checkpoints", read_only=True) as saved:
        assert saved.steps() == [4, 8, 16]
    with pytest.raises(UsageError, match=r"divides train\.steps=16 into stages: go on with as many, not 20"):
        train.run(staged(tmp_path / "start", **fields, **{"train.steps": 20}), tmp_path / "run")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"train.ema": (0.9,)}, r"train\.ema=\(0\.9,\) .* would be over the students of several stages"),
        ({"init_from": None}, "starts from a trained model: set init_from to its workdir"),
        ({"teacher.guidance.scale": 2.0}, "has its own student as its teacher: leave out what is set of teacher"),
    ],
)
def test_a_run_that_is_its_own_teacher_needs_a_start_and_no_other(tmp_path, fields, message):
    small_runs.save(small_runs.plane("flow_matching"), tmp_path)
    with pytest.raises(UsageError, match=message):
        experiment.build(staged(tmp_path, **fields))


def test_a_prediction_of_two_outputs_has_a_network_with_two(tmp_path):
    """And a method with heads of its own cannot have it."""
    config = small_runs.plane("diffusion")
    config.prediction = small_runs.base.part(small_runs.base.predictions, "both")
    exp = experiment.build(config)
    params = jax.jit(lambda: experiment.init(exp).params["student"])()
    assert params["Dense_2"]["kernel"].shape[1] == 4
    config.method = small_runs.base.part(small_runs.base.methods, "improved_mean_flow")
    with pytest.raises(UsageError, match="prediction 'both' reads two outputs as one, and method 'improved_mean_flow'"):
        experiment.build(config)
