"""Adversarial diffusion distillation: its two terms in closed form, and what each alone would make."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import Features

from flowmaps import interpolants, methods, rows
from flowmaps.errors import UsageError
from flowmaps.types import Roles

PATH = interpolants.linear()
STD, TIME = 0.7, 0.6
KEYS = rows.keys(jax.random.key(0), 0, 20_000)
BATCH = {"x0": rows.normal(rows.fold(KEYS, 9), (1,)), "x1": STD * rows.normal(rows.fold(KEYS, 8), (1,))}
STEP = jnp.zeros((), jnp.int32)


def constant(point):
    """The student that jumps to one point."""
    return lambda x, s, t, cond, *, dropout=None: (point - x) / (t - s)[:, None]


def teacher(x, s, t, cond, *, dropout=None):
    """The exact velocity of N(0, STD^2)."""
    a, b = s[:, None], 1 - s[:, None]
    return (a * STD**2 - b) / (a**2 * STD**2 + b**2) * x


IDENTITY = Features()


def flat(maps, t, cond):
    return jnp.zeros_like(maps[0])


def loss(student, *, critic=flat, player="student", features=IDENTITY, batch=BATCH, **options):
    method = methods.load("adversarial_distillation").make(
        interpolant=PATH, total_steps=10, between=(TIME, TIME), **options
    )
    extras = {"critic": critic, "features": features, "inside_teacher": lambda x, t, cond: (x + t[:, None],)}
    return method.losses[player](Roles(student, student, teacher, extras), batch, KEYS, STEP)


@pytest.mark.parametrize("point", [-0.8, 0.3, 1.2])
def test_the_distillation_contracts_to_the_mean(point):
    """d/dx = lambda 2 c x b^2 / (a^2 S^2 + b^2), zero at the mean alone: without its critic the law collapses."""
    a, b = TIME, 1 - TIME
    weight = a / np.hypot(a, b)
    slope = jax.grad(lambda point: loss(constant(point)).per_example.mean())(jnp.asarray(point))
    expected = 2.5 * 2 * weight * point * b**2 / (a**2 * STD**2 + b**2)
    np.testing.assert_allclose(slope, expected, rtol=0.02, atol=0.01)


def test_the_teachers_flow_to_its_end_is_the_other_target():
    """In many steps, X_{t,1}(x_t) = S x_t / sqrt(a^2 S^2 + b^2)."""
    slope = jax.grad(lambda point: loss(constant(point), teacher_steps=200).per_example.mean())(jnp.asarray(0.8))
    a, b = TIME, 1 - TIME
    kept = a * STD / np.sqrt(a**2 * STD**2 + b**2)
    np.testing.assert_allclose(slope, 2.5 * 2 * a / np.hypot(a, b) * 0.8 * (1 - kept), rtol=0.03)


def test_the_critics_slope_moves_the_samples():
    """With no distillation it is all: hinge's student gains D."""
    found = loss(constant(0.3), critic=lambda maps, t, cond: 2 * maps[0], distillation=0.0)
    np.testing.assert_allclose(found.per_example, -0.6, rtol=1e-4)


@pytest.mark.parametrize(("sees", "shown"), [("samples", 0.3), ("features", 9.0), ("teacher", None)])
def test_what_the_critic_sees(sees, shown):
    """Samples as they are, their features, or the inside of the teacher of noised ones."""
    seen = []

    def critic(maps, t, cond):
        seen.append((maps[0], t))
        return jnp.zeros_like(maps[0])

    loss(constant(0.3), critic=critic, features=Features(30), sees=sees)
    made, times = seen[1]
    if shown is not None:
        np.testing.assert_allclose(made, shown, rtol=1e-4)
        assert np.all(times == 1)
    else:
        spread = np.asarray(made[:, 0] - times - 0.3 * times) / np.asarray(1 - times)
        np.testing.assert_allclose([spread.mean(), spread.std()], [0, 1], atol=0.03)
        assert 0 <= times.min() < 0.01 and 0.99 < times.max() <= 1


def test_the_students_states_are_noise_alone_at_the_first_of_its_times():
    """On a path whose first state has data in it too."""
    path, seen = interpolants.variance_exploding(), []

    def student(x, s, t, cond, *, dropout=None):
        seen.append((x, s))
        return -x

    method = methods.load("adversarial_distillation").make(interpolant=path, total_steps=10, steps=4, sees="samples")
    batch = {**BATCH, "x1": 1000 + BATCH["x1"]}
    roles = Roles(student, student, teacher, {"critic": flat})
    method.losses["student"](roles, batch, KEYS, STEP)
    x, s = (np.asarray(v) for v in seen[0])
    np.testing.assert_array_equal(np.unique(s), np.float32([0, 0.25, 0.5, 0.75]))
    first = s == 0
    np.testing.assert_array_equal(x[first], np.asarray(path.start(BATCH["x0"]))[first])
    assert x[~first].min() > 900


def test_each_player_has_its_own_gradient():
    def value(theta, direction, player):
        return loss(constant(theta), critic=lambda m, t, cond: m[0] * direction, player=player).per_example.mean()

    of_student, of_critic = jax.grad(value, argnums=(0, 1))(jnp.asarray(0.3), jnp.asarray(0.5), "critic")
    assert of_student == 0 and of_critic != 0


@pytest.mark.parametrize("options", [{"steps": 0}, {"teacher_steps": 0}, {"distillation": -1.0}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(UsageError, match=r"must be at least 1, and method.distillation=.* at least 0"):
        loss(constant(0.3), **options)
