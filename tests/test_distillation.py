"""Distillation from an exact teacher: the loss itself is zero at the exact map, and a stray from it is pulled back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import COUNT, LAWS, LINEAR, SOURCE_STD, draw_batch, gaussian, stray
from scipy import stats

from flowmaps import interpolants, methods, rows, train_step
from flowmaps.errors import UsageError
from flowmaps.guidance import Autoguided, ClassifierFree
from flowmaps.identities import flow_map
from flowmaps.methods import ctm
from flowmaps.solvers import steps
from flowmaps.types import NULL_LABEL, Roles

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


@pytest.mark.float64
@pytest.mark.parametrize("path", ["linear", "trigonometric"])
def test_heuns_step_from_no_data_is_ddims_and_near_it_too(path):
    """Where alpha = 0 the step in sigma has no length; a step that ends without noise is Euler's."""
    path = interpolants.make(path)
    exact = gaussian(path).velocity

    def velocity(x, s, t, cond, *, dropout=None):
        return exact(x, s)

    x = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2)))
    for s, u in ((0.0, 0.25), (0.5, 1.0)):
        s, u = jnp.full(4, s), jnp.full(4, u)
        np.testing.assert_allclose(
            steps.heun(velocity, path, x, s, u, {}), steps.ddim(velocity, path, x, s, u, {}), rtol=1e-12
        )
    s, u = jnp.full(4, 0.25), jnp.full(4, 0.5)
    assert np.abs(steps.heun(velocity, path, x, s, u, {}) - steps.ddim(velocity, path, x, s, u, {})).max() > 1e-4


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


def conditional(label):
    """Means of the labels 0 and 1, and of the rows without one 0."""
    means = jnp.array([[1.0, -0.5], [-0.3, 0.8], [0.0, 0.0]])
    return means[jnp.where(label == NULL_LABEL, 2, label)]


def labelled(wide):
    """The exact velocity on `KARRAS` of N(m_c, STD^2 I), and without a label of N(0, wide^2 I): affine in x."""

    def velocity(x, s, t, cond, *, dropout=None):
        sigma = KARRAS.sigma(s)[:, None]
        width = jnp.where(cond["label"] == NULL_LABEL, wide, STD)[:, None]
        return KARRAS.beta.slope(s)[:, None] * sigma * (x - conditional(cond["label"])) / (width**2 + sigma**2)

    return velocity


def guided_steps(count, skip, wide):
    """(s, label, w) -> the gain and offset [B, 2] of the guided teacher's DDIM steps from s to the end, in closed form:
    in sigma, x + h (w k(t) (x - m) + (1 - w) k_wide(t) x), k(u) = u / (S^2 + u^2)."""
    grid = KARRAS.sigma(jnp.linspace(0, 1, count + 1))

    def affine(s, label, w):
        gain, offset = jnp.ones((len(s), 2)), jnp.zeros((len(s), 2))
        index = jnp.round(s * count).astype(jnp.int32)
        for _ in range(-(-count // skip)):
            t, r = grid[index][:, None], grid[jnp.minimum(index + skip, count)][:, None]
            k, k_wide = t / (STD**2 + t**2), t / (wide**2 + t**2)
            one = 1 + (r - t) * (w[:, None] * k + (1 - w[:, None]) * k_wide)
            gain, offset = one * gain, one * offset - (r - t) * w[:, None] * k * conditional(label)
            index = jnp.minimum(index + skip, count)
        return gain, offset

    return affine


def affine_student(affine):
    """X_{s,1}(x) = gain x + offset, of the row's label and scale."""

    def velocity(x, s, t, cond, *, dropout=None):
        gain, offset = affine(s, cond["label"], cond["guidance"])
        return (gain * x + offset - x) / jnp.where(t > s, t - s, 1.0)[:, None]

    return velocity


def karras_batch():
    label = jnp.arange(1024, dtype=jnp.int32) % 2
    x0, x1 = rows.normal(KEYS, (2,)), STD * rows.normal(rows.fold(KEYS, 1), (2,))
    return {"x0": x0, "x1": x1 + conditional(label), "label": label}


@pytest.mark.float64
@pytest.mark.parametrize("wide", [STD, 2 * STD])
@pytest.mark.parametrize(("count", "skip"), [(6, 1), (12, 5)])
def test_latent_consistency_rests_at_the_guided_teachers_steps_at_every_scale(wide, count, skip):
    """Exactly, of scales that rows draw; the steps of one scale alone do not rest."""
    batch, affine = karras_batch(), guided_steps(count, skip, wide)
    method = methods.load("latent_consistency").make(
        interpolant=KARRAS, total_steps=10, chain=count, skip=skip, guidance=(3.0, 15.0)
    )
    teacher = ClassifierFree(labelled(wide), 1.0)

    def loss(student):
        return method.losses["student"](Roles(student, student, teacher), batch, KEYS, jnp.zeros((), jnp.int32))

    np.testing.assert_allclose(loss(affine_student(affine)).per_example, 0, atol=1e-18)
    one = affine_student(lambda s, label, w: affine(s, label, jnp.full_like(w, 9.0)))
    assert loss(one).per_example.mean() > 0.1
    assert (method.guidance.low, method.guidance.high) == (3.0, 15.0)


@pytest.mark.float64
def test_the_guided_output_is_affine_in_the_scale():
    """Of one step, and where both laws have one width of any number."""
    s, label = jnp.linspace(0, 0.8, 5), jnp.arange(5, dtype=jnp.int32) % 2

    def output(affine, w):
        gain, offset = affine(s, label, jnp.full(5, w))
        return gain * 2.0 + offset

    for affine in (guided_steps(5, 5, 2 * STD), guided_steps(5, 1, STD)):
        low, middle, high = (output(affine, w) for w in (3.0, 9.0, 15.0))
        np.testing.assert_allclose(middle, (low + high) / 2, rtol=1e-12)
        assert np.abs(high - low).max() > 0.1


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


@pytest.mark.parametrize("leg", ["ddim", "heun"])
def test_latent_consistency_without_guidance_and_skips_is_consistency_distillation(leg):
    batch = {name: x for name, x in karras_batch().items() if name != "label"}
    own = {"chain": 6, "skip": 1, "huber": 0.00054}
    same = {"schedule": "doubling", "intervals": (6, 6)}
    losses = [
        methods.load(name).make(interpolant=KARRAS, total_steps=10, leg=leg, distance="pseudo_huber", **options)
        for name, options in (("latent_consistency", own), ("consistency", same))
    ]
    roles = Roles(stray(drift, 0.1 * jnp.ones(COUNT)), drift, drift)
    ours, theirs = (m.losses["student"](roles, batch, KEYS, jnp.zeros((), jnp.int32)).per_example for m in losses)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5)
    assert losses[0].guidance is None


def guided_map(x, s, t, cond, *, dropout=None):
    """Of N(m_c, STD^2 I) guided by N(0, STD^2 I) on the path LINEAR: the exact map of N(w m_c, STD^2 I)."""

    def deviation(time):
        return jnp.sqrt(time**2 * STD**2 + (1 - time) ** 2 * SOURCE_STD**2)[:, None]

    mean = cond.get("guidance", jnp.ones_like(s))[:, None] * conditional(cond["label"])
    s_, t_ = s[:, None], t[:, None]
    # (q(t) - q(s)) / (t - s), by the difference of their squares
    rise = ((s_ + t_) * STD**2 - (2 - s_ - t_) * SOURCE_STD**2) / (deviation(s) + deviation(t))
    return mean + rise / deviation(s) * (x - s_ * mean)


@pytest.mark.float64
@pytest.mark.parametrize("objective", ["eulerian", "lagrangian"])
@pytest.mark.parametrize("by", ["label", "weak"])
def test_align_your_flow_rests_at_the_guided_map_of_every_scale(objective, by):
    """Exactly, guided by leaving out the label or by a weaker model; the plain map does not rest."""
    batch = {**karras_batch(), "x0": SOURCE_STD * rows.normal(KEYS, (2,))}

    def weak(x, s, t, cond, *, dropout=None):
        return guided_map(x, s, t, {"label": jnp.full_like(cond["label"], NULL_LABEL)})

    teacher = ClassifierFree(guided_map, 1.0) if by == "label" else Autoguided(guided_map, weak, 1.0)
    options = {**WHOLE, "most": 1.0, "objective": objective, "guidance": (1.0, 3.0)}
    method = methods.load("align_your_flow").make(interpolant=LINEAR, total_steps=10, **options)

    def loss(student):
        return method.losses["student"](Roles(student, student, teacher), batch, KEYS, jnp.zeros((), jnp.int32))

    np.testing.assert_allclose(loss(guided_map).metrics["map"], 0, atol=1e-20)
    np.testing.assert_allclose(loss(guided_map).per_example, 0, atol=1e-20)
    plain = loss(lambda x, s, t, cond, *, dropout=None: guided_map(x, s, t, {"label": cond["label"]}))
    assert plain.per_example.mean() > 0.1
    assert (method.guidance.low, method.guidance.high) == (1.0, 3.0)


def test_align_your_flows_guidance_is_a_teachers():
    with pytest.raises(UsageError, match=r"method.guidance=\(1.0, 3.0\) is of a teacher, and the path has none"):
        methods.load("align_your_flow").make(interpolant=LINEAR, total_steps=10, warmup_steps=1, guidance=(1.0, 3.0))


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
