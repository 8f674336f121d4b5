"""Distillation from an exact teacher: the loss itself is zero at the exact map, and a stray from it is pulled back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import COUNT, LAWS, LINEAR, SOURCE_STD, draw_batch, gaussian, stray

from flowmaps import interpolants, methods, rows
from flowmaps.errors import UsageError
from flowmaps.guidance import Autoguided, ClassifierFree
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
