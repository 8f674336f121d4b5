"""Guidance that is trained in, and label dropout: exact rest points on paths whose velocity is a constant a label."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps import interpolants, methods, predictions, rows
from flowmaps.errors import UsageError
from flowmaps.methods import _terms
from flowmaps.types import NULL_LABEL, Roles

pytestmark = pytest.mark.float64

BATCH = 128
SPEEDS = np.array([[1.0, -2.0], [0.5, 3.0], [-1.0, 0.25]])
"""dx_t/dt of labels 0 and 1 (data at one point, source at 0), and what the network says without a label."""


def constant_student(guided):
    """Off the diagonal, and for MeanFlow on it: `guided` of the label; without a label the last speed."""

    def velocity(x, s, t, cond, *, dropout=None):
        table = np.concatenate([guided, SPEEDS[2:]])
        return jnp.asarray(table)[jnp.where(cond["label"] == NULL_LABEL, 2, cond["label"])]

    return velocity


def loss(name, student, label, step=0, **options):
    """Guidance asks for rows without labels; here a share of them that no batch meets."""
    given = {"interpolant": interpolants.linear(), "total_steps": 10, "label_dropout": 1e-12}
    method = methods.load(name).make(**{**given, **options})
    batch = {"x0": jnp.zeros((BATCH, 2)), "x1": jnp.asarray(SPEEDS)[label], "label": label}
    keys = rows.keys(jax.random.key(0), 0, BATCH)
    return method.losses["student"](Roles(student, student), batch, keys, jnp.asarray(step, jnp.int32))


@pytest.mark.parametrize("tangent", ["conditional", "model"])
@pytest.mark.parametrize(("omega", "kappa"), [(3.0, 0.0), (1.0, 0.5), (0.2, 0.92)])
def test_mean_flow_rests_at_guidance_of_scale_omega_over_one_minus_kappa(omega, kappa, tangent):
    """g = omega v + (1 - omega - kappa) v_null + kappa g gives g = w v + (1 - w) v_null, w = omega / (1 - kappa)."""
    label = jnp.arange(BATCH, dtype=jnp.int32) % 2
    scale = omega / (1 - kappa)
    guided = SPEEDS[2:] + scale * (SPEEDS[:2] - SPEEDS[2:])
    out = loss("mean_flow", constant_student(guided), label, omega=omega, kappa=kappa, tangent=tangent)
    np.testing.assert_allclose([out.metrics["flow"], out.metrics["map"]], 0, atol=1e-20)
    plain = loss("mean_flow", constant_student(SPEEDS[:2]), label, omega=omega, kappa=kappa, tangent=tangent)
    assert plain.metrics["flow"] > 0.1 and plain.metrics["map"] > 0.1


@pytest.mark.parametrize(
    "schedule", [("sigmoid", (0.0, 0.05)), ("exponential", (1.0, 1.0)), ("exponential", (0.3, 0.3))]
)
@pytest.mark.parametrize(("omega", "kappa"), [(3.0, 0.0), (0.2, 0.92)])
def test_alpha_flow_rests_where_mean_flow_does_at_any_alpha(omega, kappa, schedule):
    """The map of a constant velocity is that velocity: the guided chord and the guided rest have one slope."""
    label = jnp.arange(BATCH, dtype=jnp.int32) % 2
    guided = SPEEDS[2:] + omega / (1 - kappa) * (SPEEDS[:2] - SPEEDS[2:])
    options = {"omega": omega, "kappa": kappa, "schedule": schedule[0], "between": schedule[1], "step": 9}
    out = loss("alpha_flow", constant_student(guided), label, **options)
    np.testing.assert_allclose([out.metrics["flow"], out.metrics["map"]], 0, atol=1e-20)
    plain = loss("alpha_flow", constant_student(SPEEDS[:2]), label, **options)
    assert plain.metrics["flow"] > 0.1 and plain.metrics["map"] > 0.1


def test_mean_flow_is_unguided_outside_its_interval():
    label = jnp.arange(BATCH, dtype=jnp.int32) % 2
    plain = constant_student(SPEEDS[:2])
    assert loss("mean_flow", plain, label, omega=3.0, interval=(2.0, 3.0)).metrics["flow"] == 0
    assert loss("mean_flow", plain, label, omega=3.0, interval=(0.5, 1.0)).metrics["flow"] > 0.1


def test_mean_flow_rows_without_a_label_keep_the_plain_velocity():
    """Their target is dx_t/dt, whatever the guidance."""
    label = jnp.full(BATCH, NULL_LABEL, jnp.int32)
    out = loss("mean_flow", constant_student(SPEEDS[:2]), label, omega=3.0)  # SPEEDS[-1] is both path and answer
    np.testing.assert_allclose([out.metrics["flow"], out.metrics["map"]], 0, atol=1e-20)


def test_shortcut_guides_its_smallest_step_and_the_larger_ones_inherit():
    """Diagonal: the plain velocity. Steps of 2 / M and more: the guided one, exactly at rest."""
    label = jnp.arange(BATCH, dtype=jnp.int32) % 2
    guided = SPEEDS[2:] + 1.5 * (SPEEDS[:2] - SPEEDS[2:])

    def student(x, s, t, cond, *, dropout=None):
        plain, other = (constant_student(table)(x, s, t, cond) for table in (SPEEDS[:2], guided))
        return jnp.where((t > s)[:, None], other, plain)

    out = loss("shortcut", student, label, guidance_scale=1.5)
    np.testing.assert_allclose([out.metrics[k] for k in ("flow", "base", "bootstrap")], 0, atol=1e-20)
    assert loss("shortcut", constant_student(SPEEDS[:2]), label, guidance_scale=1.5).metrics["base"] > 0.1


def test_labels_are_dropped_at_their_rate_and_none_at_zero():
    label = jnp.zeros(20_000, jnp.int32)
    keys = rows.keys(jax.random.key(0), 0, 20_000)
    dropped = _terms.drop_labels({"label": label}, keys, 0.1)["label"]
    np.testing.assert_allclose((dropped == NULL_LABEL).mean(), 0.1, atol=4 * (0.09 / 20_000) ** 0.5)
    assert _terms.drop_labels({"label": label}, keys, 0.0)["label"] is label


def test_mean_flow_can_drop_labels_on_the_diagonal_alone():
    """The released code's rule: the rate over the whole batch is the same, and no off-diagonal row loses its label."""
    seen = []

    def spy(x, s, t, cond, *, dropout=None):
        seen.append(np.asarray(cond["label"]))
        return constant_student(SPEEDS[:2])(x, s, t, cond)

    loss("mean_flow", spy, jnp.ones(BATCH, jnp.int32), label_dropout=0.3, dropped_rows="diagonal")
    diagonal, off = seen
    assert len(diagonal) == 3 * len(off) == 3 * BATCH // 4
    assert 0.25 < np.mean(diagonal == NULL_LABEL) < 0.55
    assert np.all(off == 1)


def student_that_reads_guidance(x, s, t, cond, *, dropout=None):
    """v_null + omega (v - v_null) within the interval that is asked for, of the row's own omega."""
    plain = constant_student(SPEEDS[:2])(x, s, t, cond)
    acts = (cond["interval"][:, 0] <= s) & (s <= cond["interval"][:, 1])
    scale = jnp.where(acts, cond["guidance"], 1.0)[:, None]
    return SPEEDS[2:] + scale * (plain - SPEEDS[2:])


def with_two_heads(velocity):
    def student(x, s, t, cond, *, dropout=None):
        return velocity(x, s, t, cond)

    student.heads = lambda x, s, t, cond, *, dropout=None: (velocity(x, s, t, cond),) * 2
    return student


@pytest.mark.parametrize("name", ["improved_mean_flow", "tvm"])
def test_guidance_as_an_input_rests_at_every_scale(name):
    """Exactly, whatever omega and interval a row has drawn; the plain velocity does not rest."""
    label = jnp.arange(BATCH, dtype=jnp.int32) % 2
    options = {"guidance": (1.0, 8.0)}
    out = loss(name, with_two_heads(student_that_reads_guidance), label, **options)
    np.testing.assert_allclose([out.metrics["flow"], out.metrics["map"]], 0, atol=1e-20)
    assert loss(name, with_two_heads(constant_student(SPEEDS[:2])), label, **options).metrics["flow"] > 0.1


@pytest.mark.parametrize("name", ["improved_mean_flow", "tvm"])
def test_rows_without_a_label_are_asked_for_no_guidance(name):
    """Their omega is 1 and their target dx_t/dt."""
    seen = []

    def student(x, s, t, cond, *, dropout=None):
        seen.append(np.asarray(cond["guidance"]))
        return constant_student(SPEEDS[:2])(x, s, t, cond)

    label = jnp.full(BATCH, NULL_LABEL, jnp.int32)
    out = loss(name, with_two_heads(student), label, guidance=(2.0, 8.0))
    np.testing.assert_allclose([out.metrics["flow"], out.metrics["map"]], 0, atol=1e-20)
    assert all(np.all(scale == 1) for scale in seen if isinstance(scale, np.ndarray))


def test_the_scale_of_tvm_multiplies_the_output_and_divides_its_loss():
    """Under `scaled`, a stray c of the network is omega c of the velocity, its guided target's (1 - omega) c: the flow
    term is |(2 - 1 / omega) c|^2, and the terminal one, which compares the stray with itself, 0."""
    label = jnp.arange(BATCH, dtype=jnp.int32) % 2
    read = predictions.make("scaled", interpolant=interpolants.linear())

    def raw(x, s, t, cond, *, dropout=None):
        return student_that_reads_guidance(x, s, t, cond) / cond["guidance"][:, None] + jnp.array([[0.3, 0.4]])

    weighed = np.sqrt(loss("tvm", read(raw), label, guidance=(2.0, 8.0)).per_example / 0.25)
    omega = 1 / (2 - weighed)
    assert 2 - 1e-9 < omega.min() < 2.2 and 7.8 < omega.max() < 8 + 1e-9


@pytest.mark.parametrize(("name", "options"), [("shortcut", {"guidance_scale": 1.5}), ("mean_flow", {"omega": 2.0})])
def test_guidance_needs_rows_without_labels(name, options):
    with pytest.raises(UsageError, match=r"method\.label_dropout above 0"):
        loss(name, constant_student(SPEEDS[:2]), jnp.zeros(BATCH, jnp.int32), label_dropout=0.0, **options)
    loss(
        "mean_flow", constant_student(SPEEDS[:2]), jnp.zeros(BATCH, jnp.int32), label_dropout=0.0, omega=0.5, kappa=0.5
    )
