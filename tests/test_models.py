"""Trained runs as teachers: restored, carried to the student's path, guided, and refused where they do not fit."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_experiment import batches, finished_run, small

from configs import base
from flowmaps import experiment, interpolants, methods, models, networks, rows
from flowmaps import train_step as step_
from flowmaps.errors import MissingError, UsageError
from flowmaps.guidance import with_guidance
from flowmaps.types import NULL_LABEL, Roles


def distilled(dataset="checker"):
    """A small config whose method asks a teacher for its velocity."""
    config = small("consistency", dataset)
    config.method.leg = "ddim"
    return config


def test_a_trained_run_is_a_frozen_teacher(tmp_path):
    """Restored with its own network, prediction and average; a step leaves it as it is; and it is in the checkpoint."""
    donor = finished_run(tmp_path, method="flow_matching", width=16)
    config = distilled()
    config.teacher.workdir = str(tmp_path)
    exp = experiment.build(config)
    state = experiment.init(exp)
    expected = jax.device_get(donor.ema["0.999"])
    chex.assert_trees_all_equal(jax.device_get(state.params["teacher"]), expected)
    assert set(state.opt_state) == {"student"}
    roles = []
    spied = exp.method._replace(
        losses={"student": lambda r, *rest: roles.append(r) or exp.method.losses["student"](r, *rest)}
    )
    after, _ = experiment.train_step(exp._replace(method=spied))(state, next(batches(exp, config)))
    assert roles[0].teacher is not None
    chex.assert_trees_all_equal(jax.device_get(after.params["teacher"]), expected)


def points(count=6):
    keys = jax.random.split(jax.random.key(0), 2)
    return jax.random.normal(keys[0], (count, 2)), jax.random.uniform(keys[1], (count,), minval=0.1, maxval=0.9)


def roles_of(exp):
    """As the losses see them: bound, and the teacher guided."""
    state = experiment.init(exp)
    bound = step_.bind_roles(experiment.binds(exp), {}, state.params)
    return models.guided_teacher(exp.config, exp.method, bound)


def test_a_teacher_on_another_path_is_carried_over(tmp_path):
    """Exactly: its velocity at the time of the same noise level, by scale and ends."""
    finished_run(tmp_path)
    config = distilled()
    config.teacher.workdir = str(tmp_path)
    same = roles_of(experiment.build(config)).teacher
    config.interpolant = base.part(base.interpolants, "trigonometric")
    config.coupling.scale = 0.7
    exp = experiment.build(config)
    x, s = points()
    linear = interpolants.linear()
    time = linear.time_of_level(exp.interpolant.sigma(s))
    there = (time / exp.interpolant.alpha.value(s))[:, None] * x  # one x / alpha
    ends = linear.ends_from_velocity(there, same(there, time, time, {}), time)
    by_hand = exp.interpolant.velocity(ends.noise * 0.7, ends.data, s)
    np.testing.assert_allclose(roles_of(exp).teacher(x, s, s, {}), by_hand, rtol=1e-4, atol=1e-5)


def test_a_teacher_of_coupled_ends_is_not_carried_over(tmp_path):
    finished_run(tmp_path)
    config = distilled()
    config.teacher.workdir = str(tmp_path)
    config.coupling = base.part(base.couplings, "optimal_transport")
    config.interpolant = base.part(base.interpolants, "trigonometric")
    with pytest.raises(UsageError, match="is on another path, of coupling 'independent' for 'optimal_transport'"):
        experiment.build(config)


def test_a_teacher_is_guided_by_a_weaker_one(tmp_path):
    """v_weak + 3 (v - v_weak) within the interval, and v outside of it."""
    for name, width in (("strong", 16), ("weak", 8)):
        finished_run(tmp_path / name, width=width)
    config = distilled()
    config.teacher.update(workdir=str(tmp_path / "strong"))
    strong = roles_of(experiment.build(config)).teacher
    config.teacher.workdir = str(tmp_path / "weak")
    weak = roles_of(experiment.build(config)).teacher
    config.teacher.update(workdir=str(tmp_path / "strong"), weak=str(tmp_path / "weak"))
    config.teacher.guidance.update(scale=3.0, interval=(0.0, 0.5))
    guided = roles_of(experiment.build(config)).teacher
    x, _ = points()
    for time, scale in ((0.25, 3.0), (0.75, 1.0)):
        s = jnp.full(len(x), time)
        v, w = strong(x, s, s, {}), weak(x, s, s, {})
        np.testing.assert_allclose(guided(x, s, s, {}), w + scale * (v - w), rtol=1e-5, atol=1e-6)
    asked = with_guidance({}, jnp.full(len(x), 2.0))  # of the row, before what the config says
    np.testing.assert_allclose(guided(x, s, s, asked), w + 2 * (v - w), rtol=1e-5, atol=1e-6)
    config.teacher.guidance.scale = 1.0
    with pytest.raises(UsageError, match=r"teacher\.weak=.* guides at no scale: set teacher\.guidance\.scale"):
        experiment.build(config)
    config.teacher.workdir = None
    with pytest.raises(UsageError, match=r"teacher.weak=.* guides a teacher: set teacher.workdir too"):
        experiment.build(config)


def test_a_teacher_is_guided_by_leaving_out_the_label(tmp_path):
    finished_run(tmp_path, dataset="digits", method_options={"label_dropout": 0.1})
    config = distilled(dataset="digits")
    config.teacher.workdir = str(tmp_path)
    plain = roles_of(experiment.build(config)).teacher
    config.teacher.guidance.scale = 2.0
    guided = roles_of(experiment.build(config)).teacher
    x, s, label = jnp.ones((4, 8, 8, 1)), jnp.full(4, 0.5), jnp.arange(4, dtype=jnp.int32)
    with_label, without = (plain(x, s, s, {"label": given}) for given in (label, jnp.full(4, NULL_LABEL, jnp.int32)))
    np.testing.assert_allclose(guided(x, s, s, {"label": label}), 2 * with_label - without, rtol=1e-4, atol=1e-5)


def test_a_student_is_sampled_without_its_teacher(tmp_path):
    """And a workdir that is unset on the command line names none."""
    config = distilled()
    config.teacher.workdir = str(tmp_path / "gone")
    assert set(experiment.build(config, training=False).networks) == {"student"}
    config = small()
    for nothing in ("", "None"):
        config.teacher.workdir = config.init_from = nothing
        assert experiment.build(config).teachers == {}
        experiment.init(experiment.build(config))


def test_a_teacher_that_is_not_asked_and_one_that_is_missing_are_refused(tmp_path):
    finished_run(tmp_path)
    with pytest.raises(UsageError, match=r"with these options asks a teacher: set teacher\.workdir to"):
        experiment.build(distilled())
    config = small("consistency")
    config.teacher.workdir = str(tmp_path)
    with pytest.raises(UsageError, match=r"'consistency' with these options asks no teacher, and teacher\.workdir="):
        experiment.build(config)
    config.method.leg = "ddim"
    assert experiment.build(config).method.teacher == "velocity"


@pytest.mark.parametrize(
    ("teacher", "student", "options", "message"),
    [
        ("consistency", "flow_map_distillation", {}, "'consistency', which learns no velocity: name a run of flow"),
        ("flow_matching", "flow_map_distillation", {"objective": "progressive"}, "learns the velocity alone, and"),
        ("consistency", "flow_map_distillation", {"objective": "progressive"}, "learns maps to the end alone, and"),
        ("flow_matching", "truncated_consistency", {}, "learns the velocity alone, and 'truncated_consistency' asks a"),
    ],
)
def test_a_teacher_is_asked_what_it_has_learned(tmp_path, teacher, student, options, message):
    finished_run(tmp_path, method=teacher)
    config = small(student)
    config.method.update(options)
    config.teacher.workdir = str(tmp_path)
    with pytest.raises(UsageError, match=message):
        experiment.build(config)


def test_a_teacher_on_the_same_path_is_not_carried_over(tmp_path):
    """Also where the config is locked, as the command line's is: else its map would be lost."""
    finished_run(tmp_path)
    config = small("flow_map_distillation")
    config.method.objective = "progressive"
    config.teacher.workdir = str(tmp_path)
    config.lock()
    exp = experiment.build(config)
    x, s = points()
    params = experiment.init(exp).params["teacher"]
    learned = networks.bind(exp.networks["teacher"], params)
    np.testing.assert_allclose(roles_of(exp).teacher(x, s, 1 - 0 * s, {}), learned(x, s, 1 - 0 * s, {}), rtol=1e-6)


def test_a_map_is_not_carried_to_another_path(tmp_path):
    finished_run(tmp_path)
    config = small("flow_map_distillation")
    config.method.objective = "progressive"
    config.teacher.workdir = str(tmp_path)
    experiment.build(config)
    config.interpolant = base.part(base.interpolants, "trigonometric")
    with pytest.raises(UsageError, match="is on another path, to which its map cannot be carried"):
        experiment.build(config)


@pytest.mark.parametrize("name", ["consistency", "ctm", "facm", "align_your_flow", "knowledge_distillation"])
def test_a_method_says_whether_its_loss_asks_the_teacher(name):
    """As it does: with the options of a teacher it calls one, and without them it does not."""
    options = {
        "consistency": {"leg": "ddim"},
        "ctm": {"leg": "ddim"},
        "facm": {"velocity": "teacher"},
        "align_your_flow": {"velocity": "teacher"},
        "knowledge_distillation": {"pairs": "online", "solver_steps": 2},
    }[name]
    keys = rows.keys(jax.random.key(0), 0, 8)
    batch = {"x0": rows.normal(keys, (2,)), "x1": jnp.ones((8, 2))}
    for chosen in ({}, options):
        asked = []
        method = methods.load(name).make(interpolant=interpolants.linear(), total_steps=20_000, **chosen)

        def student(x, s, t, cond, *, dropout=None):
            return x

        def teacher(x, s, t, cond, *, dropout=None, asked=asked):
            asked.append(None)
            return x

        method.losses["student"](Roles(student, student, teacher), batch, keys, jnp.zeros((), jnp.int32))
        assert bool(asked) == bool(method.teacher) == (chosen is options)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 2.0}, "teacher.guidance.scale=2.0 needs a teacher that knows unlabelled data too"),
        ({"scale": math.nan}, "teacher.guidance.scale=nan must be a number"),
        ({"interval": (0.9,)}, r"teacher.guidance.interval=\(0.9,\) must be two times"),
    ],
)
def test_a_teachers_guidance_that_cannot_be_is_refused(tmp_path, changes, message):
    finished_run(tmp_path, dataset="digits")
    config = distilled(dataset="digits")
    config.teacher.workdir = str(tmp_path)
    config.teacher.guidance.update(changes)
    with pytest.raises(UsageError, match=message):
        experiment.build(config)


def test_a_student_of_every_scale_needs_a_guided_teacher_and_no_unlabelled_rows(tmp_path):
    """It drops no label itself, and yet is sampled at a scale; its teacher has dropped some, or has a weaker one."""
    for name, rate in (("always", 0.0), ("sometimes", 0.1)):
        finished_run(tmp_path / name, dataset="digits", method_options={"label_dropout": rate})
    config = small("latent_consistency", "digits", guidance={"scale": 2.0})
    config.method.guidance = (1.0, 3.0)
    config.teacher.workdir = str(tmp_path / "always")
    with pytest.raises(
        UsageError, match=r"method.guidance=\(1.0, 3.0\) needs a teacher that knows unlabelled data too"
    ):
        experiment.build(config)
    config.teacher.weak = str(tmp_path / "sometimes")
    experiment.build(config)
    config.teacher.update(workdir=str(tmp_path / "sometimes"), weak=None)
    config.teacher.guidance.scale = 2.0
    with pytest.raises(UsageError, match=r"beside method\.guidance=\(1\.0, 3\.0\): each row draws its own scale"):
        experiment.build(config)
    config.teacher.guidance.scale = 1.0
    exp = experiment.build(config)
    assert exp.method.guidance is not None and config.method.label_dropout == 0
    config.guidance.scale = 4.0
    with pytest.raises(UsageError, match=r"guidance\.scale=4\.0 is not among what"):
        experiment.build(config)


def test_a_teacher_of_other_data_or_of_none_is_refused(tmp_path):
    finished_run(tmp_path)
    config = distilled(dataset="moons")
    config.teacher.workdir = str(tmp_path)
    with pytest.raises(UsageError, match=r"is of another kind: data.name checker -> moons"):
        experiment.build(config)
    config.teacher.workdir = str(tmp_path / "nowhere")
    with pytest.raises(MissingError, match=r"teacher.workdir='.*nowhere' is not the workdir of a run"):
        experiment.build(config)
