"""Consistency trajectory models: at rest at the exact map or a teacher's steps, and what the gradient flows through."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import COUNT, LAWS, LINEAR, draw_batch, gaussian, stray
from scipy import stats
from test_distillation import KARRAS, KEYS, STD, drift

from flowmaps import methods, rows, train_step
from flowmaps.identities import flow_map
from flowmaps.methods import ctm
from flowmaps.solvers import steps
from flowmaps.types import Roles


def ctm_loss(student, target, teacher, batch, step=0, interpolant=LINEAR, **options):
    """Of the map alone, per row."""
    given = {"intervals": 8, "most_steps": 8, "leg": "ddim", "weights": (1.0, 0.0), **options}
    method = methods.load("ctm").make(interpolant=interpolant, total_steps=10, **given)
    return method.losses["student"](Roles(student, target, teacher), batch, KEYS, jnp.asarray(step, jnp.int32))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_trajectory_model_of_exact_steps_rests_at_the_exact_map(law, step, monkeypatch):
    """Nothing is lost of any number of steps, to the mixture's own error, and a stray is pulled back."""
    oracle = LAWS[law]()
    exact = oracle.average_velocity
    monkeypatch.setitem(steps.STEPS, "ddim", lambda v, path, x, s, u, cond: flow_map(exact, x, s, u, cond))
    batch = draw_batch(oracle.sample, KEYS)

    @jax.jit
    def mean(theta):
        student, target = stray(exact, theta), stray(exact, jax.lax.stop_gradient(theta))
        return ctm_loss(student, target, exact, batch, step).per_example.mean()

    np.testing.assert_allclose(mean(jnp.zeros(COUNT)), 0, atol=2e-6)
    np.testing.assert_allclose(jax.grad(mean)(jnp.zeros(COUNT)), 0, atol=2e-3)
    assert all(jax.grad(mean)(0.1 * jnp.eye(COUNT)[k])[k] > 1e-3 for k in range(COUNT))


@pytest.mark.parametrize("leg", ["ddim", "heun"])
@pytest.mark.parametrize("step", [0, 1, 2])
def test_a_trajectory_model_rests_at_the_product_of_its_teachers_steps(leg, step):
    """Of N(0, STD^2 I): X_st is the product of the gains between s and t, whatever their number."""
    count = 6
    times = jnp.linspace(0, 1, count + 1)
    gains = steps.STEPS[leg](drift, KARRAS, jnp.ones((count, 1)), times[:-1], times[1:], {})[:, 0]
    products = jnp.concatenate([jnp.cumprod(gains[::-1])[::-1], jnp.ones(1)])

    def student(x, s, t, cond, *, dropout=None):
        first, last = (jnp.round(time * count).astype(jnp.int32) for time in (s, t))
        return ((products[first] / products[last] - 1) / jnp.where(t > s, t - s, 1.0))[:, None] * x

    batch = {"x0": rows.normal(KEYS, (2,)), "x1": STD * rows.normal(rows.fold(KEYS, 1), (2,))}
    options = {"step": step, "interpolant": KARRAS, "leg": leg, "intervals": count, "most_steps": count}
    assert ctm_loss(student, student, drift, batch, **options).per_example.max() < 1e-6
    assert ctm_loss(drift, drift, drift, batch, **options).per_example.mean() > 1e-3


def test_trajectory_models_gradient_flows_through_the_outer_maps_input_alone():
    """The outer map X_t1(x) = c x brings c^2 to the distance's gradient, and a constant one none; its parameters and
    the teacher's have a gradient of exactly zero where they are bound as the train step binds them."""
    exact, batch = gaussian().average_velocity, draw_batch(gaussian().sample, KEYS)

    def loss(student, target):
        return ctm_loss(student, target, exact, batch, most_steps=3).per_example

    def times_(c):
        def velocity(x, s, t, cond, *, dropout=None):
            return (c - 1) * x / jnp.where(t > s, t - s, 1.0)[:, None]

        return velocity

    # At t = 1 the outer map is the identity whatever its velocity: these rows are left out.
    inside = loss(times_(1.0), times_(0.0)) < 1e-9
    assert 0 < inside.mean() < 1

    def gradient(c):
        def mean(theta):
            return (inside * loss(stray(exact, theta), times_(c))).mean()

        return jax.grad(mean)(0.1 * jnp.ones(COUNT))

    np.testing.assert_allclose(gradient(0.0), 0, atol=1e-9)
    assert np.all(gradient(1.0) != 0)
    np.testing.assert_allclose(gradient(2.0), 4 * gradient(1.0), rtol=1e-4)

    def bound(params):
        binds = dict.fromkeys(("student", "teacher"), lambda params: stray(exact, params["theta"]))
        roles = train_step.bind_roles(
            binds, {"student": params["student"]}, {"teacher": params["teacher"]}, params["target"]
        )
        return ctm_loss(*roles[:3], batch, weights=(1.0, 1.0)).per_example.mean()

    start = {"theta": 0.1 * jnp.ones(COUNT)}
    found = jax.grad(bound)({"student": start, "teacher": start, "target": start})
    assert np.all(found["student"]["theta"] != 0)
    assert np.all(found["teacher"]["theta"] == 0) and np.all(found["target"]["theta"] == 0)


def test_the_number_of_steps_is_as_likely_as_it_is_large():
    """P(k) = k / (1 + ... + 17), of the training step."""
    drawn = jax.vmap(lambda step: ctm.steps_between(step, 17))(jnp.arange(20_000))
    counts, share = np.bincount(drawn, minlength=18)[1:], np.arange(1, 18) / 153
    assert stats.chisquare(counts, 20_000 * share).pvalue > 1e-3
    assert np.all(jax.vmap(lambda step: ctm.steps_between(step, 1))(jnp.arange(100)) == 1)


@pytest.mark.parametrize("leg", ["path", "heun"])
def test_all_rows_take_one_number_of_steps(leg):
    """s is uniform on the times from which so many remain, t from u on; and u differs between training steps."""
    seen = []

    def student(x, s, t, cond, *, dropout=None):
        seen.append((np.asarray(s), np.asarray(t)))
        return 0 * x

    batch = {"x0": rows.normal(KEYS, (2,)), "x1": STD * rows.normal(rows.fold(KEYS, 1), (2,))}

    def target(x, s, t, cond, *, dropout=None):
        return 0 * x

    for step in range(4):
        seen.clear()
        ctm_loss(student, target, drift, batch, step, KARRAS, leg=leg, intervals=17, most_steps=17)
        (u, end), (s, t), _ = (np.round(17 * np.stack(pair)).astype(int) for pair in seen)
        k = int(ctm.steps_between(jnp.asarray(step), 17))
        np.testing.assert_array_equal(u - s, k)
        np.testing.assert_array_equal(end, t)
        assert set(s) == set(range(18 - k)) and np.all(t >= u) and t.max() == 17
