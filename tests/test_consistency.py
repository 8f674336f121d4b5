"""Consistency training: its schedules against the papers' numbers, and its fixed point against the exact map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import LINEAR, draw_batch, gaussian, regressed_map
from scipy import stats

from flowmaps import interpolants, methods, rows, times
from flowmaps.errors import UsageError
from flowmaps.methods import consistency
from flowmaps.types import Roles

KARRAS = interpolants.variance_exploding(sigma_min=0.0)


def steps_of(schedule, steps):
    return [float(schedule(jnp.asarray(k, jnp.int32))) for k in steps]


def test_square_root_is_the_papers_number_of_levels():
    """N(k) = ceil(sqrt(k / K ((s1 + 1)^2 - s0^2) + s0^2) - 1) + 1 levels: from 2 to s1 + 1 = 151."""
    intervals = steps_of(consistency.square_root(2, 150, 1_000), range(0, 1_001, 8))
    assert intervals[0] == 1 and intervals[-1] == 150
    exact = np.sqrt(np.arange(0, 1_001, 8) / 1_000 * (151**2 - 4) + 4) - 1
    assert np.all(np.abs(intervals - (exact + 0.5)) <= 0.5 + 1e-4)


def test_doubling_is_the_papers_sequence():
    """iCT: 11, 21, 41, ..., 1281 levels, each for an eighth of training."""
    intervals = steps_of(consistency.doubling(10, 1280, 800), [0, 99, 100, 199, 200, 300, 400, 500, 600, 700, 799])
    assert intervals == [10, 10, 20, 20, 40, 80, 160, 320, 640, 1280, 1280]


def test_the_targets_decay_follows_the_intervals():
    """mu(k) = exp(s0 log(mu0) / N(k)): mu0 to the power s0 at first, near to 1 at last."""
    decay = consistency.decay_of(consistency.square_root(2, 150, 1_000), 2, 0.9)
    np.testing.assert_allclose(steps_of(decay, [0, 1_000]), [0.9**2, 0.9 ** (2 / 150)], rtol=1e-6)


class Recorded:
    """A student that notes the times at which it is asked, and whose map is the identity."""

    def __init__(self):
        self.times = []

    def __call__(self, x, s, t, cond, *, dropout=None):
        self.times.append(np.asarray(s, np.float64))
        return 0 * x


def drawn(step=0, count=4_096, interpolant=KARRAS, total=8, **options):
    """s and u of a batch, and the loss."""
    method = methods.load("consistency").make(interpolant=interpolant, total_steps=total, **options)
    keys, student, target = rows.keys(jax.random.key(0), 0, count), Recorded(), Recorded()
    batch = {"x0": jnp.ones((count, 2)), "x1": jnp.zeros((count, 2))}
    out = method.losses["student"](Roles(student, target), batch, keys, jnp.asarray(step, jnp.int32))
    return student.times[0], target.times[0], out


def levels(path, times_):
    return np.asarray(path.sigma(jnp.asarray(times_, jnp.float32)), np.float64)


@pytest.mark.parametrize(("step", "ratios"), [(0, (0, 0, 0.473, 0.5)), (7, (0.981, 0.988, 0.996, 0.996))])
def test_ratio_shrinks_the_level_as_ect_does(step, ratios):
    """r(t) / t = max(0, 1 - (1 + 8 sigmoid(-t)) / 2^(stage + 1)): at t = 0.1, 1, 5 and 20 of stages 0 and 7."""
    s, u, _ = drawn(step, schedule="ratio", law=("log_normal", 0.0, 2.0))
    before, after = levels(KARRAS, s), levels(KARRAS, u)
    for sigma, ratio in zip((0.1, 1.0, 5.0, 20.0), ratios, strict=True):
        near = np.argmin(np.abs(np.log(before / sigma)))
        np.testing.assert_allclose(after[near] / before[near], ratio, atol=4e-3)
    assert np.all(after[before < 1] == 0) == (step == 0)


def test_neighbours_are_the_grids_around_a_time():
    s, u, _ = drawn(schedule="doubling", intervals=(10, 10), law=("truncated_log_normal", -1.1, 2.0))
    np.testing.assert_allclose(u - s, 0.1, atol=1e-6)
    np.testing.assert_allclose(s * 10, np.round(s * 10), atol=1e-5)
    assert s.min() >= 0 and u.max() <= 1


def test_levels_are_drawn_by_their_log_normal_mass():
    """iCT's p(n) is the mass of the law between neighbouring levels, on the path's levels alone."""
    path = interpolants.variance_exploding()
    grid = {"schedule": "doubling", "intervals": (10, 10), "law": ("truncated_log_normal", -1.1, 2.0)}
    s, _, _ = drawn(count=20_000, interpolant=path, **grid)
    mass = -np.diff(stats.norm(-1.1, 2.0).cdf(np.log(levels(path, np.linspace(0, 1, 11)))))
    counts = np.bincount(np.round(s * 10).astype(int), minlength=10)
    assert stats.chisquare(counts, mass / mass.sum() * 20_000).pvalue > 1e-3


def test_gap_weights_by_the_difference_of_levels():
    """Where f = x the residual is (sigma_s - sigma_u) x0: its square over the gap is the gap |x0|^2."""
    s, u, out = drawn(schedule="doubling", intervals=(10, 10), weighting="gap")
    np.testing.assert_allclose(out.per_example, 2 * (levels(KARRAS, s) - levels(KARRAS, u)), rtol=1e-3)


@pytest.mark.parametrize("path", ["variance_exploding", "variance_preserving", "linear"])
def test_gap_has_no_weight_where_there_is_no_gap(path):
    """At the path's end, to which levels below its last are moved, s and u are one: finite losses and gradients."""
    path = interpolants.make(path)
    method = methods.load("consistency").make(
        interpolant=path, total_steps=20, schedule="ratio", ratio=(8.0, 8.0, 1.0), law=("log_normal", -3.0, 3.0),
        distance="pseudo_huber", weighting="gap",
    )  # fmt: skip
    keys = rows.keys(jax.random.key(0), 0, 4_096)
    batch = {"x0": rows.normal(keys, (2,)), "x1": rows.normal(rows.fold(keys, 1), (2,))}

    def mean(theta, step):
        def student(x, s, t, cond, *, dropout=None):
            return theta * x

        return method.losses["student"](Roles(student, student), batch, keys, step).per_example.mean()

    for step in (0, 19):
        value, slope = jax.value_and_grad(mean)(0.3, jnp.asarray(step))
        assert np.isfinite(value) and np.isfinite(slope)


def test_the_last_stage_lasts_to_the_end():
    """20 steps of 8 stages: 2 steps each, and what is left in the eighth."""
    times_ = [drawn(step, total=20, schedule="ratio", law=("log_normal", 0.0, 2.0))[1] for step in (14, 15, 19)]
    np.testing.assert_array_equal(times_[0], times_[2])
    np.testing.assert_array_equal(times_[0], times_[1])


def error_of(following, count):
    """Of the fixed point, from s = 0 to t = 1."""
    x = draw_batch(gaussian().sample, rows.keys(jax.random.key(0), 0, 64))["x0"]
    s, t = jnp.zeros(64), jnp.ones(64)
    difference = regressed_map(following, count)(x, s, t, {}) - gaussian().average_velocity(x, s, t, {})
    return float(jnp.abs(difference).max())


def test_the_fixed_point_comes_to_the_exact_map_as_the_grid_is_refined():
    """At first order in the grid's interval; that the loss rests there is test_closed_form's matter."""

    def following(count):
        return lambda s, t: jnp.minimum((jnp.round(s * count) + 1) / count, t)

    errors = [error_of(following(count), count) for count in (16, 32, 64)]
    np.testing.assert_allclose(np.diff(np.log2(errors)), -1, atol=0.2)


def test_alpha_flows_fixed_point_is_first_order_in_alpha():
    errors = [error_of(lambda s, t, a=a: s + a * (t - s), int(12 / a)) for a in (0.1, 0.05, 0.025)]
    np.testing.assert_allclose(np.diff(np.log2(errors)), -1, atol=0.15)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "doubling", "intervals": (10, 1280)}, r"intervals=\(10, 1280\) double 7 times, more often than"),
        ({"schedule": "ratio", "stages": 8}, r"method.stages=8 of train.steps=4: a stage has a step at least"),
        ({"schedule": "ratio", "stages": 2, "initial_decay": 0.9}, r"initial_decay=0.9 follows the grid's intervals"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused(options, message):
    with pytest.raises(UsageError, match=message):
        methods.load("consistency").make(interpolant=LINEAR, total_steps=4, **options)


def test_truncated_log_normal_needs_both_parameters():
    with pytest.raises(UsageError, match="truncated_log_normal takes mean, std"):
        times.on_path(KARRAS, "truncated_log_normal", 1.0)
