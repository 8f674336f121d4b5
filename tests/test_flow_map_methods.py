"""What is particular to each of the newer flow maps: the papers' formulas by hand, exact rest points, refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import LINEAR, draw_batch, gaussian
from scipy import stats

from flowmaps import closed_forms, interpolants, methods, predictions, rows, times
from flowmaps.errors import UsageError
from flowmaps.identities import flow_map
from flowmaps.methods import alpha_flow, imm
from flowmaps.rows import expand, flat_sum
from flowmaps.types import Roles

STD = 0.5
TRIG = interpolants.trigonometric(source_std=STD)
COUNT = 256
KEYS = rows.keys(jax.random.key(0), 0, COUNT)


def make(name, interpolant=LINEAR, total_steps=10, **options):
    return methods.load(name).make(interpolant=interpolant, total_steps=total_steps, **options)


def loss(method, student, batch, step=0, target=None):
    extras = {"log_variance": lambda s, t: jnp.zeros_like(s)}
    roles = Roles(student, student if target is None else target, None, extras)
    return method.losses["student"](roles, batch, KEYS, jnp.asarray(step))


def gaussian_batch(std=STD):
    """Data of the source's own deviation."""
    return {name: std * rows.normal(rows.fold(KEYS, i), (2,)) for i, name in enumerate(("x0", "x1"))}


# Continuous-time consistency


def network(x, theta):
    """The paper's F, some function of x / sd and the angle."""
    return jnp.sin(2 * x + theta[:, None]) - 0.3 * x * theta[:, None]


def trig_flow(network):
    """The student of F: the prediction `edm`, whose output points to the data, on TrigFlow's path."""

    def raw(x, s, t, cond, *, dropout=None):
        return -network(x, jnp.pi / 2 * (1 - s))

    return predictions.make("edm", interpolant=TRIG, data_std=STD)(raw)


@pytest.mark.float64
@pytest.mark.parametrize("step", [0, 3, 8])
def test_the_consistency_tangent_is_the_papers(step):
    """g = -cos^2 (sd F - dx) - r cos sin (x + sd dF), r = step / 8, in the paper's angle: here pi / 2 times as long."""
    law = ("log_normal", -1.0, 1.4)
    batch = jax.tree.map(lambda a: a.astype(jnp.float64), gaussian_batch())
    theta = jnp.pi / 2 * (1 - times.on_path(TRIG, *law)(rows.fold(KEYS, 1)))
    cos, sin = (expand(f(theta), batch["x1"]) for f in (jnp.cos, jnp.sin))
    x, dx = cos * batch["x1"] + sin * batch["x0"], cos * batch["x0"] - sin * batch["x1"]
    value, slope = jax.jvp(network, (x / STD, theta), (dx / STD, jnp.ones_like(theta)))
    paper = -(cos**2) * (STD * value - dx) - step / 8 * cos * sin * (x + STD * slope)

    method = make("continuous_consistency", TRIG, law=law, warmup_steps=8, constant=0.0, learned_weight=False)
    out = loss(method, trig_flow(network), batch, step)
    np.testing.assert_allclose(out.per_example, np.pi**2 / 4 * flat_sum(paper**2), rtol=1e-6)
    normalized = make("continuous_consistency", TRIG, law=law, warmup_steps=8, constant=0.157, learned_weight=False)
    length = np.pi / 2 * jnp.sqrt(flat_sum(paper**2))
    out = loss(normalized, trig_flow(network), batch, step)
    np.testing.assert_allclose(out.per_example, (length / (length + 0.157)) ** 2, rtol=1e-6)


def test_the_learned_weight_divides_by_the_size():
    """exp(-w) |.|^2 / d + w at w = 0."""
    methods_ = (make("continuous_consistency", TRIG, warmup_steps=2, learned_weight=w) for w in (False, True))
    squares, mean = (loss(method, trig_flow(network), gaussian_batch()) for method in methods_)
    np.testing.assert_allclose(mean.per_example, squares.per_example / 2, rtol=1e-6)


def test_on_matched_variance_the_marginal_tangent_is_zero():
    """Data of deviation sd stand still: f = x, F = -tan(theta / 2) x / sd, and g = 0 in the mean given x."""
    method = make("continuous_consistency", TRIG, warmup_steps=0, constant=0.0, learned_weight=False)
    oracle = closed_forms.gaussian(jnp.zeros(2), STD**2 * jnp.eye(2), TRIG)
    student = trig_flow(lambda x, theta: -jnp.tan(theta / 2)[:, None] * x)
    x, s = STD * rows.normal(KEYS, (2,)), 0.05 + 0.9 * rows.uniform(KEYS)
    np.testing.assert_allclose(student(x, s, jnp.ones(COUNT), {}), 0, atol=1e-6)
    np.testing.assert_allclose(oracle.velocity(x, s), 0, atol=1e-6)
    # With the marginal velocity, 0, in the path's place the whole loss is 0: x_s = x on a path that rests at s.
    s = times.on_path(TRIG, "log_normal", -1.0, 1.4)(rows.fold(KEYS, 1))
    still = {"x0": expand(TRIG.beta.value(s), x) * x, "x1": expand(TRIG.alpha.value(s), x) * x}
    np.testing.assert_allclose(loss(method, student, still).per_example, 0, atol=1e-9)
    assert loss(method, trig_flow(lambda x, theta: -7 * x * theta[:, None]), still).per_example.mean() > 1


# alpha-Flow


def test_alpha_falls_from_one_to_zero_and_stays_there():
    alpha = alpha_flow.sigmoid(0.5, 0.8, 1_000)
    values = [float(alpha(jnp.asarray(k))) for k in (0, 500, 650, 800, 999)]
    assert values[:2] == [1, 1] and values[3:] == [0, 0]
    np.testing.assert_allclose(values[2], 0.5, atol=1e-6)
    decay = alpha_flow.exponential(0.1, 0.002, 1_000)
    np.testing.assert_allclose([float(decay(jnp.asarray(k))) for k in (0, 500, 1_000)], [0.1, 0.0002**0.5, 0.002])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("alpha_flow", {"between": (0.9, 0.2)}, r"between=\(0.9, 0.2\): the sigmoid schedule needs 0 <= first < last"),
        ("alpha_flow", {"schedule": "exponential", "between": (0.1, 0.0)}, "exponential schedule needs 0 < last"),
        ("continuous_consistency", {"warmup_steps": 10}, "warmup_steps=10 must be fewer than train.steps=10"),
        ("align_your_flow", {"warmup_steps": 10}, "warmup_steps=10 must be fewer than train.steps=10"),
        ("align_your_flow", {"warmup_steps": 0, "most": 1.5}, r"method.most=1.5 must lie in \[0, 1\]"),
        ("facm", {"relaxation": 0.0}, r"method\.relaxation=0\.0 and method\.clip=1\.0 must be above 0"),
        ("imm", {"between": (0.0, 1.0)}, "at its first time the path has no data"),
        ("imm", {"between": (0.5, 0.2)}, r"must be two rising times of \[0.0, 1.0\]"),
        ("ctm", {"intervals": 1}, "method.intervals=1: a grid"),
        ("latent_consistency", {"skip": 0}, r"method.skip=0 must be at least 1 and at most method.chain=1000"),
        ("latent_consistency", {"guidance": (15.0, 3.0)}, "two rising scales above 0"),
        ("ctm", {"intervals": 8, "most_steps": 9}, r"method.most_steps=9 must be .* at most method.intervals=8"),
        ("imm", {"group": 0}, "method.group=0: a group has a row at least"),
        ("facm", {"clip": -1.0}, r"method\.clip=-1\.0 must be above 0"),
        ("consistency", {"intervals": (150, 2)}, r"intervals=\(150, 2\) must be two rising numbers"),
        ("consistency", {"schedule": "doubling", "intervals": (0, 2)}, "two rising numbers of at least 1"),
        ("tvm", {"guidance": (0.0, 2.0), "label_dropout": 0.1}, "must be two rising scales above 0"),
        ("tvm", {"guidance": (1.0, 2.0)}, r"method.guidance=\(1.0, 2.0\) needs method.label_dropout above 0"),
        ("improved_mean_flow", {"guidance": (1.0, 8.0)}, "needs method.label_dropout above 0"),
        ("improved_mean_flow", {"guidance": (9.0, 8.0), "label_dropout": 0.1}, "two rising scales above 0"),
    ],
)
def test_options_that_cannot_be_are_refused(name, options, message):
    with pytest.raises(UsageError, match=message):
        make(name, **options)


@pytest.mark.parametrize("name", ["facm", "tvm"])
def test_methods_of_the_unit_interval_refuse_others(name):
    path = interpolants.variance_preserving(t_max=0.9)
    with pytest.raises(UsageError, match=rf"{name} needs times on \[0, 1\]"):
        make(name, path)


@pytest.mark.parametrize("name", ["continuous_consistency", "facm", "align_your_flow"])
def test_a_teacher_that_is_not_there_is_asked_for(name):
    warm = {} if name == "facm" else {"warmup_steps": 1}
    with pytest.raises(UsageError, match=r"ask for a teacher, and there is none: set teacher\.workdir"):
        loss(make(name, velocity="teacher", **warm), gaussian().average_velocity, gaussian_batch())


# Align Your Flow


@pytest.mark.parametrize("step", [0, 4, 9])
def test_align_your_flow_warms_its_derivative_up_to_a_part(step):
    """|g|^2 of g = dx_s/ds - v + r (t - s) dv/ds, r = 0.99 min(1, step / 8), the derivative by hand."""
    method = make("align_your_flow", law=("uniform",), warmup_steps=8, constant=0.0)
    batch = draw_batch(gaussian().sample, KEYS)
    s, t = times.sorted_pair(times.uniform())(rows.fold(KEYS, 1))
    x, velocity = LINEAR.point(batch["x0"], batch["x1"], s), batch["x1"] - batch["x0"]

    def student(x, s, t, cond, *, dropout=None):
        return jnp.sin(2 * x + (s - t)[:, None])

    v, dv = jax.jvp(lambda x, s: student(x, s, t, {}), (x, s), (velocity, jnp.ones(COUNT)))
    part = 0.99 * min(1.0, step / 8)
    exact = flat_sum((velocity - v + part * (t - s)[:, None] * dv) ** 2)
    np.testing.assert_allclose(loss(method, student, batch, step).per_example, exact, rtol=1e-4)


# Inductive Moment Matching


def test_mmd_is_never_negative_and_zero_for_equal_samples():
    one = rows.normal(KEYS, (2,)).reshape(-1, 4, 2)
    width = jnp.full(len(one), 0.3)
    assert np.all(imm.mmd(one, one[::-1], width) > 0)
    np.testing.assert_allclose(imm.mmd(one, one, width), 0, atol=1e-6)
    np.testing.assert_allclose(imm.mmd(one, one[:, ::-1], width), 0, atol=1e-6)


def test_mmd_of_one_particle_is_a_distance_of_points():
    """M = 1: 2 - 2 exp(-|y - y'| / (d c)), consistency training with a robust distance."""
    one, other = (rows.normal(rows.fold(KEYS, i), (2,))[:, None] for i in range(2))
    exact = 2 - 2 * jnp.exp(-jnp.linalg.norm(one - other, axis=-1)[:, 0] / (2 * 0.3))
    np.testing.assert_allclose(imm.mmd(one, other, jnp.full(COUNT, 0.3)), exact, rtol=1e-5)


def test_imm_times_and_weight_are_the_papers():
    """s uniform, t uniform between s and the end, and the weight 1/2 sigmoid(b - log SNR) (log SNR)' alpha / (alpha^2 +
    beta^2), read off a student whose y - y' is a constant wherever u < t."""
    method = make("imm", group=1, halvings=12)

    def apart(offset):
        return lambda x, s, t, cond, *, dropout=None: (offset - x) / (t - s)[:, None]  # X = offset

    batch = gaussian_batch()
    out = loss(method, apart(1.0), batch, target=apart(0.0))
    one_key = rows.fold(KEYS, 1)
    s = 0.006 + 0.994 * np.asarray(rows.uniform(rows.fold(one_key, 0)), np.float64)
    t = s + (1 - s) * np.asarray(rows.uniform(rows.fold(one_key, 1)), np.float64)
    log_snr, slope = 2 * np.log(s / (1 - s)), 2 / (s * (1 - s))
    weight = 0.5 / (1 + np.exp(log_snr - 4)) * slope * s / (s**2 + (1 - s) ** 2)
    mmd = 2 - 2 * np.exp(-np.sqrt(2) / (2 * LINEAR.source_std * (t - s)))
    before = (t - s) / (s * t) > 0.05  # levels further apart than the decrement
    assert before.sum() > COUNT / 2
    np.testing.assert_allclose(out.per_example[before], (weight * mmd)[before], rtol=2e-3)


def test_a_batch_that_is_not_made_of_groups_is_refused():
    with pytest.raises(UsageError, match="a batch of 256 rows is not made of groups of 3"):
        loss(make("imm", group=3), gaussian().average_velocity, gaussian_batch())


# Terminal Velocity Matching


def test_gaps_have_their_law_and_ends_leave_room():
    """P(t - s) is logit-normal; given it t's law is cut to [t - s, 1]."""
    many = rows.keys(jax.random.key(1), 0, 20_000)
    s, t = (np.asarray(x, np.float64) for x in times.gap(-0.8, 1.0, 0.4, 1.0)(many))
    gap = t - s
    assert np.all((s >= -1e-7) & (t <= 1))
    assert stats.kstest(np.log(gap / (1 - gap)), stats.norm(-0.8, 1.0).cdf).pvalue > 1e-3
    low = stats.norm(0.4, 1.0).cdf(np.log(gap / (1 - gap)))
    cut = (stats.norm(0.4, 1.0).cdf(np.log(t / np.maximum(1 - t, 1e-9))) - low) / (1 - low)
    assert stats.kstest(np.clip(cut, 0, 1), stats.uniform.cdf).pvalue > 1e-3


# Consistency trajectory models


def test_ctm_lets_the_gradient_flow_through_the_outer_map():
    """An outer map that scales by 3 multiplies the gradient by 9, at the same points apart."""

    def outer(scale):
        def velocity(x, s, t, cond, *, dropout=None):
            return jnp.where((t > s)[:, None], (scale - 1) * x / jnp.where(t > s, t - s, 1.0)[:, None], 0.0)

        return velocity

    method = make("ctm", intervals=4, weights=(1.0, 0.0))
    batch = draw_batch(gaussian().sample, KEYS)

    def gradient(scale):
        def mean(theta):
            def student(x, s, t, cond, *, dropout=None):
                return theta * jnp.cos(x + s[:, None])

            return loss(method, student, batch, target=outer(scale)).per_example.mean()

        return jax.grad(mean)(0.7)

    # At t = 1 the outer map is the identity, whatever the scale: rows that end there count once, others nine times.
    one, three, five = (float(gradient(scale)) for scale in (1.0, 3.0, 5.0))
    inner = (three - one) / 8
    np.testing.assert_allclose(five, one + 24 * inner, rtol=1e-4)
    assert abs(inner) > 1e-4


def test_ctm_stops_its_aim():
    """The first call of the student, of the aim, has a gradient of exactly zero, the second does not."""
    method = make("ctm", intervals=2, weights=(1.0, 0.0))
    batch = draw_batch(gaussian().sample, KEYS)

    def mean(theta, frozen):
        calls = []

        def student(x, s, t, cond, *, dropout=None):
            calls.append(1)
            return (theta if len(calls) == 2 else frozen) * jnp.cos(x + s[:, None])

        return loss(method, student, batch, target=lambda x, s, t, cond, *, dropout=None: 0 * x).per_example.mean()

    reached, aim = jax.grad(mean, argnums=(0, 1))(0.7, 0.7)
    assert abs(reached) > 1e-4 and aim == 0


# Flow-anchored consistency


def test_facm_with_two_clocks_asks_for_the_anchor_at_two_minus_s():
    seen = []

    def raw(x, s, t, cond, *, dropout=None):
        seen.append((s, t))
        return x

    velocity = predictions.make("two_clocks", interpolant=LINEAR)(raw)
    s = rows.uniform(KEYS)
    velocity(gaussian_batch()["x0"], s, s, {})
    velocity(gaussian_batch()["x0"], s, jnp.ones(COUNT), {})
    np.testing.assert_array_equal(seen[0], (2 - s, 2 - s))
    np.testing.assert_array_equal(seen[1], (s, s))


def test_facm_relaxes_and_clips_its_target():
    """With v = 0 at both ends the tangent is -dx_s/ds; e is the square of (1 - sqrt(s)) clip(dx_s/ds), by hand."""
    method = make("facm", cosine=0.0, law=("uniform",), clip=0.5)
    batch = gaussian_batch()
    velocity = batch["x1"] - batch["x0"]
    s = rows.uniform(rows.fold(KEYS, 1))
    step = (1 - jnp.sqrt(s))[:, None] * jnp.clip(velocity, -0.5, 0.5)
    e = (step**2).mean(-1)
    exact = (velocity**2).mean(-1) + jnp.cos(jnp.pi * s / 2) * e / jnp.sqrt(e + 1e-3)
    out = loss(method, lambda x, s, t, cond, *, dropout=None: 0 * x, batch)
    np.testing.assert_allclose(out.per_example, exact, rtol=1e-5)
    angled = make("facm", law=("uniform",), clip=0.5)  # beside it the angle between 0 and dx_s/ds, whose cosine is 0
    out = loss(angled, lambda x, s, t, cond, *, dropout=None: 0 * x, batch)
    np.testing.assert_allclose(out.per_example, exact + 1, rtol=1e-5)


def test_facm_measures_the_angle_of_channels():
    """cos = 1 for parallel fields, 0 for orthogonal ones, whatever their lengths."""
    module = methods.load("facm")
    one = jnp.asarray([[[3.0, 0.0], [0.0, 2.0]]])
    np.testing.assert_allclose(module.misalignment(one, 2 * one), 0, atol=1e-6)
    np.testing.assert_allclose(module.misalignment(one, one[..., ::-1]), 1, atol=1e-6)


def test_mmd_is_zero_where_the_map_is_exact():
    """y = X_st(x) and y' = X_ut(X_su(x)) are the same points, by the semigroup."""
    exact, s = gaussian().average_velocity, 0.1 + 0.3 * rows.uniform(KEYS)
    u, t = s + 0.2, s + 0.5
    x = LINEAR.point(*draw_batch(gaussian().sample, KEYS).values(), s)
    one = flow_map(exact, x, s, t, {})
    other = flow_map(exact, flow_map(exact, x, s, u, {}), u, t, {})
    grouped = (points.reshape(-1, 4, 2) for points in (one, other))
    np.testing.assert_allclose(imm.mmd(*grouped, jnp.full(COUNT // 4, 0.15)), 0, atol=1e-5)
