"""Progressive distillation: the paper's formulas by hand, its fixed points, and its stages."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import LAWS, LINEAR, draw_batch

from flowmaps import interpolants, methods, optimizers, rows, stages, state
from flowmaps.errors import UsageError
from flowmaps.identities import flow_map, semigroup
from flowmaps.methods import progressive_distillation
from flowmaps.solvers import steps
from flowmaps.types import Method, Roles, Stage

KEYS = rows.keys(jax.random.key(0), 0, 512)
COSINE = interpolants.trigonometric(source_std=1.0)
STD = 0.7
SPACES = ("data", "noise", "truncated", "v", "velocity", "state")


def loss_of(student, teacher, batch, *, path=COSINE, step=0, **options):
    method = methods.load("progressive_distillation").make(interpolant=path, total_steps=8, first=8, **options)
    roles = Roles(student, student, teacher)
    return method.losses["student"](roles, batch, KEYS, jnp.asarray(step))


def gaussian_batch():
    return {"x0": rows.normal(rows.fold(KEYS, 1), (2,)), "x1": STD * rows.normal(rows.fold(KEYS, 2), (2,))}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("inputs", ["data", "noise"])
@pytest.mark.parametrize("step", [0, 3])
def test_two_exact_steps_are_one(law, inputs, step):
    oracle = LAWS[law]()
    exact = oracle.average_velocity
    for space in SPACES:
        out = loss_of(exact, exact, draw_batch(oracle.sample, KEYS), path=LINEAR, space=space, inputs=inputs, step=step)
        assert out.per_example.max() < 1e-6


def denoiser(x, s, t, cond, *, dropout=None):
    """DDIM's step with the exact denoiser of N(0, STD^2 I), held from s to t."""
    a, b = COSINE.alpha.value(s), COSINE.beta.value(s)
    total = (a * STD) ** 2 + b**2
    return COSINE.chord((b / total)[:, None] * x, (a * STD**2 / total)[:, None] * x, s, t)


@pytest.mark.float64
@pytest.mark.parametrize("space", SPACES)
def test_a_stage_rests_at_the_product_of_its_teachers_two_gains(space):
    """Of Gaussian data, where DDIM's step is a gain: in the first stage (4 steps) and the second (2)."""

    def product(x, s, t, cond, *, dropout=None):
        middle = (s + t) / 2
        moved = flow_map(denoiser, flow_map(denoiser, x, s, middle, cond), middle, t, cond)
        return (moved - x) / (t - s)[:, None]

    batch = gaussian_batch()
    for step in (0, 2):
        assert loss_of(product, denoiser, batch, space=space, step=step).per_example.max() < 1e-20
        assert loss_of(denoiser, denoiser, batch, space=space, step=step).per_example.mean() > 1e-6


@pytest.mark.float64
def test_the_units_are_those_of_the_papers_formulas():
    """x~ = (z~ - (b_t / b_s) z) / (a_t - (b_t / b_s) a_s), and weights 1, SNR, max(SNR, 1), SNR + 1 of |x~ - x^|^2."""
    batch, index = gaussian_batch(), jnp.floor(4 * rows.uniform(rows.fold(KEYS, 1)))
    s, middle, t = index / 4, (index + 0.5) / 4, (index + 1) / 4
    a, b, a_t, b_t = (c.value(time)[:, None] for time in (s, t) for c in (COSINE.alpha, COSINE.beta))
    z = COSINE.point(batch["x0"], batch["x1"], s)
    moved = flow_map(denoiser, flow_map(denoiser, z, s, middle, {}), middle, t, {})
    aim = (moved - b_t / b * z) / (a_t - b_t / b * a)
    predicted = STD**2 * a / ((a * STD) ** 2 + b**2) * z
    squares, snr = jnp.sum((aim - predicted) ** 2, -1), (a / b)[:, 0] ** 2
    weights = {"data": 1.0, "noise": snr, "truncated": jnp.maximum(snr, 1), "v": snr + 1}
    for space, weight in weights.items():
        np.testing.assert_allclose(
            loss_of(denoiser, denoiser, batch, space=space).per_example, weight * squares, rtol=1e-8
        )


@pytest.mark.float64
def test_a_stage_is_the_semigroup_with_frozen_legs():
    """Of two unlike maps: in units of velocity the loss is the residual of the identity at the middle."""

    def other(x, s, t, cond, *, dropout=None):
        return jnp.sin(3 * x + (2 * s - t)[:, None])

    batch, index = gaussian_batch(), jnp.floor(4 * rows.uniform(rows.fold(KEYS, 1)))
    s, t = index / 4, (index + 1) / 4
    x = COSINE.point(batch["x0"], batch["x1"], s)
    residual = semigroup(denoiser, other, x, s, t, jnp.full_like(s, 0.5), {})
    made = loss_of(denoiser, other, batch, space="velocity").per_example
    np.testing.assert_allclose(made, jnp.sum(residual**2, -1), rtol=1e-10)


@pytest.mark.float64
def test_a_point_mass_has_nothing_to_learn():
    """Every teacher's two steps are then one step of the same denoiser: x~ is the point."""
    point = jnp.asarray([0.4, -0.3])

    def towards(x, s, t, cond, *, dropout=None):
        return COSINE.average_velocity(x, jnp.broadcast_to(point, x.shape), s, t)

    batch = {**gaussian_batch(), "x1": jnp.broadcast_to(point, (len(KEYS), 2))}
    assert loss_of(towards, towards, batch, space="data").per_example.max() < 1e-20


@pytest.mark.float64
def test_inputs_from_noise_are_where_the_teachers_steps_lead():
    """A student that is off by one has the same residual everywhere; its state there is the marching teacher's."""
    seen = []

    def student(x, s, t, cond, *, dropout=None):
        seen.append((x, s))
        return jnp.zeros_like(x)

    batch = gaussian_batch()
    loss_of(student, denoiser, batch, inputs="noise")
    (x, s), expected = seen[0], COSINE.start(batch["x0"])
    for number in range(6):
        start = jnp.full_like(s, number / 8)
        moved = flow_map(denoiser, expected, start, start + 1 / 8, {})
        expected = jnp.where((number < 8 * s)[:, None], moved, expected)
    np.testing.assert_allclose(x, expected, rtol=1e-12)


@pytest.mark.float64
def test_an_ancestral_teacher_has_the_posteriors_law():
    """Of a point mass two steps have the law of one, x_t given x_s, for which the posterior is exact."""
    many = rows.keys(jax.random.key(5), 0, 40_000)

    def towards(x, s, t, cond, *, dropout=None):
        return COSINE.average_velocity(x, jnp.zeros_like(x), s, t)

    s, middle, t = (jnp.full(len(many), time) for time in (0.25, 0.5, 0.75))
    x = jnp.ones((len(many), 1))
    twice = steps.ancestral(towards, COSINE, x, s, middle, {}, rows.fold(many, 0))
    twice = steps.ancestral(towards, COSINE, twice, middle, t, {}, rows.fold(many, 1))
    once = steps.ancestral(towards, COSINE, x, s, t, {}, rows.fold(many, 2))
    np.testing.assert_allclose(twice.mean(), once.mean(), atol=0.01)
    np.testing.assert_allclose(twice.std(), once.std(), rtol=0.02)
    assert loss_of(towards, towards, gaussian_batch(), teacher_step="ancestral").per_example.mean() > 0


def test_stages_halve_the_steps_and_the_last_are_longer():
    parts = progressive_distillation.halvings(64, 1, 1000, 2)
    assert [stage.generates for stage in parts] == [32, 16, 8, 4, 2, 1]
    assert [stage.steps for stage in parts] == [125, 125, 125, 125, 250, 250]
    assert sum(stage.steps for stage in progressive_distillation.halvings(16, 2, 1003, 1)) == 1003
    for first, last in ((48, 1), (8, 8), (4, 0)):
        with pytest.raises(UsageError, match=f"method.first={first} must be method.last={last} doubled"):
            progressive_distillation.halvings(first, last, 1000, 2)
    with pytest.raises(UsageError, match="fewer than the 8 parts that 6 stages have"):
        progressive_distillation.halvings(64, 1, 7, 2)


STAGED = Method(
    {"student": None},
    None,
    owners={"teacher": "frozen"},
    init={"teacher": "student"},
    stages=tuple(Stage(3, {"teacher": "student"}, n) for n in (4, 2, 1)),
)


def test_a_stage_begins_with_a_new_teacher_and_a_fresh_optimizer_and_only_then():
    made = {"student": optimizers.make("adam", learning_rate=1.0, schedule="linear", updates=9, starts=(0, 3, 6))}
    params = {"student": {"w": jnp.ones(2)}, "teacher": {"w": jnp.zeros(2)}}
    first = state.create(params, method=STAGED, optimizers=made)
    np.testing.assert_array_equal(first.params["teacher"]["w"], 1)
    worn = jax.tree.map(lambda x: x + 1, first.opt_state)
    moved = first.replace(params={"student": {"w": 5 * jnp.ones(2)}, "teacher": {"w": jnp.zeros(2)}}, opt_state=worn)
    begin = jax.jit(partial(stages.begin, STAGED, made))
    for step in range(10):
        after = begin(moved.replace(step=jnp.asarray(step)))
        begun = step in (3, 6)
        np.testing.assert_array_equal(after.params["teacher"]["w"], 5.0 if begun else 0.0)
        np.testing.assert_array_equal(after.params["student"]["w"], 5.0)
        moments = jax.tree.leaves(after.opt_state["student"][1][0])
        assert all(np.all(np.asarray(m) == (0 if begun else 1)) for m in moments)
        assert int(made["student"].count(after.opt_state["student"])) == (step if begun else 1)


def test_each_stages_rate_falls_anew():
    rate = optimizers.make_schedule("linear", 0.4, updates=10, starts=(0, 4))
    np.testing.assert_allclose(
        [float(rate(jnp.asarray(n))) for n in range(11)],
        0.4 * np.array([1, 3 / 4, 2 / 4, 1 / 4, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6, 0]),
        rtol=1e-6,
    )


@pytest.mark.parametrize(
    ("steps", "newest", "expected"), [(4, 2, 2), (2, 2, None), (4, 3, 3), (2, 4, 4), (4, 9, 3), (2, 9, 6), (1, 9, 9)]
)
def test_a_number_of_steps_is_generated_by_its_own_stage(steps, newest, expected):
    assert stages.checkpoint_of(STAGED, steps, newest) == expected
    assert stages.checkpoint_of(Method({}, None), steps, newest) == newest
