"""Distillation from an exact teacher: the loss itself is zero at the exact map, and a stray from it is pulled back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import COUNT, LAWS, LINEAR, draw_batch, gaussian, stray

from flowmaps import interpolants, methods, rows
from flowmaps.errors import UsageError
from flowmaps.solvers import steps
from flowmaps.types import Roles

KEYS = rows.keys(jax.random.key(0), 0, 1024)
WHOLE = {"warmup_steps": 0, "law": ("uniform",), "velocity": "teacher"}
CASES = [
    ("continuous_consistency", {**WHOLE, "learned_weight": False}),
    ("continuous_consistency", {**WHOLE, "learned_weight": False, "constant": 0.0}),
    ("facm", {"velocity": "teacher"}),
    ("align_your_flow", {**WHOLE, "most": 1.0}),
    ("align_your_flow", {**WHOLE, "most": 1.0, "objective": "lagrangian"}),
    ("flow_map_distillation", {}),
    ("flow_map_distillation", {"two_sided": True}),
    ("flow_map_distillation", {"objective": "eulerian", "two_sided": True}),
    ("flow_map_distillation", {"objective": "progressive"}),
]


def loss_at(name, options, law):
    """theta -> the mean loss of the exact map plus theta times the basis, from the exact velocity as a teacher."""
    oracle = LAWS[law]()
    exact = oracle.average_velocity
    method = methods.load(name).make(interpolant=LINEAR, total_steps=10, **options)
    batch = draw_batch(oracle.sample, KEYS)

    def mean(theta):
        student, target = stray(exact, theta), stray(exact, jax.lax.stop_gradient(theta))
        roles = Roles(student, target, exact)
        return method.losses["student"](roles, batch, KEYS, jnp.zeros((), jnp.int32)).per_example.mean()

    return jax.jit(jax.value_and_grad(mean))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_nothing_is_lost_at_the_exact_map(name, options, law):
    """Also where a conditional velocity would be biased: normalised tangents, robust weights, both laws."""
    value, slope = loss_at(name, options, law)(jnp.zeros(COUNT))
    np.testing.assert_allclose(value, 0, atol=2e-6)
    np.testing.assert_allclose(slope, 0, atol=2e-3)


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_a_stray_is_pulled_back(name, options):
    gradient = loss_at(name, options, "gaussian")
    for k in range(COUNT):
        assert gradient(0.1 * jnp.eye(COUNT)[k])[1][k] > 1e-3


KARRAS = interpolants.variance_exploding(source_std=1.0)
STD = 0.7


def drift(x, s, t, cond, *, dropout=None):
    """The exact velocity of N(0, STD^2 I) on `KARRAS`."""
    sigma = KARRAS.sigma(s)[:, None]
    return KARRAS.beta.slope(s)[:, None] * sigma * x / (STD**2 + sigma**2)


@pytest.mark.float64
@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("heun", 2)])
def test_a_teachers_step_has_the_closed_forms_gain(name, order):
    """In sigma: 1 + h k(t) and 1 + h / 2 (k(t) + k(r) (1 + h k(t))), k(u) = u / (S^2 + u^2), h = r - t."""
    s, u = jnp.asarray([0.2, 0.5, 0.7]), jnp.asarray([0.3, 0.55, 0.9])
    t, r = KARRAS.sigma(s), KARRAS.sigma(u)
    h, k = r - t, lambda level: level / (STD**2 + level**2)
    gain = {"ddim": 1 + h * k(t), "heun": 1 + h / 2 * (k(t) + k(r) * (1 + h * k(t)))}[name]
    x = jnp.ones((3, 2), jnp.float64)
    moved = steps.STEPS[name](drift, KARRAS, x, s, u, {})
    np.testing.assert_allclose(moved, np.broadcast_to(gain[:, None], (3, 2)), rtol=1e-9)

    def error(h):
        there = s + h
        exact = np.sqrt((STD**2 + KARRAS.sigma(there) ** 2) / (STD**2 + t**2))
        return np.abs(steps.STEPS[name](drift, KARRAS, x, s, there, {})[:, 0] - exact).max()

    np.testing.assert_allclose(np.log2(error(0.02) / error(0.01)), order + 1, atol=0.25)


@pytest.mark.parametrize("leg", ["ddim", "heun"])
def test_consistency_distillation_rests_at_the_product_of_its_teachers_steps(leg):
    """Of N(0, STD^2 I): f_i = f_{i+1} after the step's gain, exactly and without noise."""
    count = 6
    grid = KARRAS.sigma(jnp.linspace(0, 1, count + 1))
    times = jnp.linspace(0, 1, count + 1)
    ones = jnp.ones((count, 1))
    gains = steps.STEPS[leg](drift, KARRAS, ones, times[:-1], times[1:], {})[:, 0]
    products = jnp.concatenate([jnp.cumprod(gains[::-1])[::-1], jnp.ones(1)])
    assert grid[-1] > 0

    def student(x, s, t, cond, *, dropout=None):
        gain = products[jnp.round(s * count).astype(jnp.int32)]
        span = jnp.where(t > s, t - s, 1.0)
        return ((gain - 1) / span)[:, None] * x

    method = methods.load("consistency").make(
        interpolant=KARRAS, total_steps=10, leg=leg, schedule="doubling", intervals=(count, count)
    )
    batch = {"x0": rows.normal(KEYS, (2,)), "x1": STD * rows.normal(rows.fold(KEYS, 1), (2,))}
    out = method.losses["student"](Roles(student, student, drift), batch, KEYS, jnp.zeros((), jnp.int32))
    scale = jnp.mean(jnp.square(batch["x1"]))
    assert out.per_example.max() < 1e-6 * scale
    wrong = method.losses["student"](Roles(drift, drift, drift), batch, KEYS, jnp.zeros((), jnp.int32))
    assert wrong.per_example.mean() > 1e-3


def test_no_gradient_reaches_the_teacher():
    """Of those that stop it; in flow map matching it flows through its input. And LMD has no other velocity."""
    exact = gaussian().average_velocity
    for name, options in CASES:
        if name == "flow_map_distillation":
            continue
        method = methods.load(name).make(interpolant=LINEAR, total_steps=10, **options)
        batch = draw_batch(gaussian().sample, KEYS)

        def mean(theta, method=method, batch=batch):
            student = stray(exact, 0.1 * jnp.ones(COUNT))
            roles = Roles(student, student, stray(exact, theta))
            return method.losses["student"](roles, batch, KEYS, jnp.zeros((), jnp.int32)).per_example.mean()

        assert np.all(jax.grad(mean)(jnp.zeros(COUNT)) == 0)
    with pytest.raises(UsageError, match="objective='lagrangian' reads the velocity at transported points"):
        methods.load("align_your_flow").make(interpolant=LINEAR, total_steps=10, warmup_steps=1, objective="lagrangian")


def test_the_boundary_ties_the_student_to_the_first_stage():
    """A constant student has no loss but at the boundary: without its weight any constant would do."""
    path = interpolants.variance_exploding()

    def constant(x, s, t, cond, *, dropout=None):
        return (1.0 - x) / jnp.where(t > s, t - s, 1.0)[:, None]  # X = 1

    def teacher(x, s, t, cond, *, dropout=None):
        return (5.0 - x) / jnp.where(t > s, t - s, 1.0)[:, None]  # X = 5

    batch = {"x0": rows.normal(KEYS, (2,)), "x1": STD * rows.normal(rows.fold(KEYS, 1), (2,))}

    def loss(weight):
        method = methods.load("truncated_consistency").make(
            interpolant=path, total_steps=10, boundary_weight=weight, distance="squared"
        )
        return method.losses["student"](Roles(constant, constant, teacher), batch, KEYS, jnp.zeros((), jnp.int32))

    tied = loss(0.1)
    np.testing.assert_allclose(tied.metrics["boundary"], 32, rtol=1e-3)  # |1 - 5|^2 in two dimensions
    assert tied.metrics["map"] < 0.1 * 32  # of the few rows just above, whose targets lie below
    free = loss(0.0).per_example
    assert float((free < 1e-6).mean()) > 0.9


def test_a_boundary_outside_of_the_paths_levels_is_refused():
    with pytest.raises(UsageError, match=r"method\.boundary=100\.0 is not among the path's noise levels"):
        methods.load("truncated_consistency").make(interpolant=KARRAS, total_steps=10, boundary=100.0)
