"""Truncated consistency models: tied to the first stage at its boundary, and never asked below."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_distillation import KARRAS, KEYS, STD

from flowmaps import interpolants, methods, rows
from flowmaps.errors import UsageError
from flowmaps.types import Roles


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


def test_a_truncated_model_is_never_asked_below_its_boundary():
    """The noise is put back to levels above it, on any grid."""
    path, asked = interpolants.variance_exploding(), []
    method = methods.load("truncated_consistency").make(interpolant=path, total_steps=10, boundary=1.0)

    def student(x, s, t, cond, *, dropout=None):
        asked.append(s)
        return x

    roles = Roles(student, student)
    with jax.disable_jit():
        method.sampler(roles, jnp.ones((4, 2)), np.linspace(0, 1, 9), KEYS[:4], {})
    seen = np.asarray(path.sigma(jnp.concatenate(asked)))
    assert len(asked) == 8 and seen.min() > 1.0 and seen.max() > 79.9


def test_a_stage_whose_targets_lie_above_the_boundary_is_refused():
    with pytest.raises(UsageError, match=r"method\.stage=15: targets of the boundary's rows would not lie below it"):
        methods.load("truncated_consistency").make(
            interpolant=interpolants.variance_exploding(), total_steps=10, stage=15
        )


def test_a_boundary_outside_of_the_paths_levels_is_refused():
    with pytest.raises(UsageError, match=r"method\.boundary=100\.0 is not among the path's noise levels"):
        methods.load("truncated_consistency").make(interpolant=KARRAS, total_steps=10, boundary=100.0)
