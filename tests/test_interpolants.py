"""Paths: slopes, divided differences and conversions between predictions, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps import interpolants
from flowmaps.errors import UsageError
from flowmaps.identities import directional_derivative

pytestmark = pytest.mark.float64

PATHS = {
    "linear": lambda: interpolants.linear(source_std=0.7),
    "lipman": lambda: interpolants.linear(sigma_min=0.1, source_std=0.7),
    "trigonometric": lambda: interpolants.trigonometric(source_std=0.7),
    "variance_preserving": lambda: interpolants.variance_preserving(source_std=0.7),
    "sub_variance_preserving": lambda: interpolants.sub_variance_preserving(source_std=0.7),
    "variance_exploding": lambda: interpolants.variance_exploding(source_std=0.7),
    "geometric": lambda: interpolants.geometric(source_std=0.7),
    "user": lambda: interpolants.path(lambda t: t**2, lambda t: jnp.cos(jnp.pi / 2 * t), source_std=0.7),
}


@pytest.fixture(params=PATHS)
def path(request, float64):
    return PATHS[request.param]()


def inner_times(path, count=50):
    span = path.t_max - path.t_min
    return jnp.linspace(path.t_min + 0.02 * span, path.t_max - 0.02 * span, count)


def points(count=50):
    return jax.random.normal(jax.random.key(0), (3, count, 4))


def test_slopes_are_derivatives(path):
    t, h = inner_times(path), 1e-5
    for coefficient in (path.alpha, path.beta):
        central = (coefficient.value(t + h) - coefficient.value(t - h)) / (2 * h)
        np.testing.assert_allclose(coefficient.slope(t), central, atol=1e-7 * (1 + np.abs(central).max()))


def test_divided_differences_are_exact_off_and_on_the_diagonal(path):
    s = inner_times(path)
    t = s[::-1]
    for coefficient in (path.alpha, path.beta):
        quotient = (coefficient.value(t) - coefficient.value(s)) / (t - s)
        np.testing.assert_allclose(coefficient.difference(s, t), quotient, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(coefficient.difference(s, s), coefficient.slope(s), rtol=1e-12, atol=1e-13)


def test_divided_differences_are_smooth_across_the_diagonal(path):
    """d/dt [(c(t) - c(s)) / (t - s)] at t = s is c''(s) / 2; a quotient would be 0/0."""
    s = inner_times(path)
    for coefficient in (path.alpha, path.beta):
        _, derivative = directional_derivative(lambda t: coefficient.difference(s, t), (s,), (jnp.ones_like(s),))  # noqa: B023
        _, curvature = directional_derivative(coefficient.slope, (s,), (jnp.ones_like(s),))
        np.testing.assert_allclose(derivative, curvature / 2, rtol=1e-8, atol=1e-9)


def test_velocity_is_the_derivative_of_the_point(path):
    x0, x1, _ = points()
    t = inner_times(path)
    _, slope = directional_derivative(lambda t: path.point(x0, x1, t), (t,), (jnp.ones_like(t),))
    np.testing.assert_allclose(path.velocity(x0, x1, t), slope, rtol=1e-10, atol=1e-10)


def test_predictions_round_trip(path):
    """Any of velocity, data, noise and score gives back both ends, to 1e-12 of the largest number involved."""
    noise, data, _ = points()
    t = inner_times(path)
    x, velocity = path.point(noise, data, t), path.velocity(noise, data, t)
    recovered = {
        "velocity": path.ends_from_velocity(x, velocity, t),
        "data": path.ends_from_data(x, data, t),
        "noise": path.ends_from_noise(x, noise, t),
        "score": path.ends_from_score(x, path.score(noise, t), t),
    }
    for kind, ends in recovered.items():
        for found, true in ((ends.noise, noise), (ends.data, data)):
            scale = np.abs(x).max() * condition_number(path, t, kind)
            np.testing.assert_allclose(found, true, atol=1e-12 * scale, err_msg=kind)


def condition_number(path, t, kind):
    """How much a conversion at these times magnifies rounding errors of its input."""
    a, b = path.alpha.value(t), path.beta.value(t)
    da, db = path.alpha.slope(t), path.beta.slope(t)
    divisor = {"velocity": da * b - db * a, "data": b, "noise": a, "score": a}[kind]
    return float(np.max((1 + np.abs(da) + np.abs(db)) / np.abs(divisor)))


def test_score_of_a_point_mass_is_that_of_its_gaussian(path):
    """With data at a point m, x_t is N(alpha m, beta^2 std^2) and the score is -(x - alpha m) / (beta std)^2."""
    noise, m, _ = points()
    t = inner_times(path)
    x = path.point(noise, m, t)
    width = (path.beta.value(t) * path.source_std)[:, None]
    expected = -(x - path.alpha.value(t)[:, None] * m) / width**2
    np.testing.assert_allclose(path.score(noise, t), expected, rtol=1e-9)


def test_average_velocity_of_a_held_data_estimate_is_ddims_step(path):
    x, data, _ = points()
    s, t = inner_times(path), inner_times(path)[::-1]
    a, b = (c[:, None] for c in (path.alpha.value(t), path.beta.value(t)))
    noise = path.ends_from_data(x, data, s).noise
    moved = x + (t - s)[:, None] * path.average_velocity(x, data, s, t)
    np.testing.assert_allclose(moved, a * data + b * noise, rtol=1e-9, atol=1e-9)
    diagonal = path.velocity(noise, data, s)
    np.testing.assert_allclose(path.average_velocity(x, data, s, s), diagonal, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["linear", "trigonometric"])
def test_paths_end_at_source_and_data(name, float64):
    path = PATHS[name]()
    x0, x1, _ = points(2)
    ends = jnp.array([0.0, 1.0])
    np.testing.assert_allclose(path.point(x0, x1, ends), jnp.stack([x0[0], x1[1]]), atol=1e-15)
    np.testing.assert_array_equal(path.start(x0), x0)


def test_karras_levels(float64):
    """sigma runs from 80 to 0.002, by equal steps of its seventh root (EDM, eq. 5)."""
    sigma = interpolants.variance_exploding().beta.value(jnp.linspace(0, 1, 11))
    np.testing.assert_allclose(sigma[jnp.array([0, -1])], [80.0, 0.002], rtol=1e-12)
    np.testing.assert_allclose(np.diff(np.asarray(sigma) ** (1 / 7), n=2), 0, atol=1e-13)


def test_variance_is_preserved(float64):
    t = jnp.linspace(0, 0.999, 20)
    for path in (interpolants.variance_preserving(), interpolants.trigonometric(), interpolants.discrete()):
        np.testing.assert_allclose(path.alpha.value(t) ** 2 + path.beta.value(t) ** 2, 1, rtol=1e-13)


def test_sub_variance_preserving_is_solved_by_its_moments(float64):
    """dV/du = -beta V + beta (1 - exp(-2B)) from V = 0, the variance under its SDE, is (1 - exp(-B))^2."""
    path = interpolants.sub_variance_preserving()
    t = jnp.linspace(0.01, 0.99, 50)
    remaining = path.alpha.value(t) ** 2  # exp(-B)
    rate = 0.1 + 19.9 * (1 - t)
    variance, slope = path.beta.value(t) ** 2, 2 * path.beta.value(t) * path.beta.slope(t)
    np.testing.assert_allclose(-slope, rate * (1 - remaining**2 - variance), rtol=1e-10)


def test_ddpms_chain(float64):
    """alpha^2 is the running product of 1 - beta at the chain's times, and each step has its beta's variance."""
    path = interpolants.discrete(num_steps=1000)
    betas = np.linspace(1e-4, 0.02, 1000)
    t = 1 - jnp.arange(1001) / 1000
    np.testing.assert_allclose(path.alpha.value(t) ** 2, np.concatenate([[1], np.cumprod(1 - betas)]), rtol=1e-11)
    inner = t[1:] - 0.4 / 1000
    np.testing.assert_allclose(path.alpha.difference(inner, inner), path.alpha.slope(inner), rtol=1e-12)
    s, u = t[1:-1], t[:-2]
    quotient = (path.beta.value(u) - path.beta.value(s)) / (u - s)
    np.testing.assert_allclose(path.beta.difference(s, u), quotient, rtol=1e-9)


@pytest.mark.parametrize("count", [10, 20, 1000, 2000])
def test_paths_are_clean_at_their_end_to_the_bit(count):
    """In float32 too beta(1) is 0, not a rounding error of either sign: there the log-SNR is infinite."""
    for path in (interpolants.discrete(num_steps=count), interpolants.trigonometric(), interpolants.linear()):
        assert path.beta.value(jnp.ones((), jnp.float32)) == 0
        assert path.alpha.value(jnp.ones((), jnp.float32)) == 1


def test_the_ladder_is_geometric(float64):
    levels = interpolants.geometric(sigma_min=0.01, sigma_max=1.0).beta.value(jnp.linspace(0, 1, 10))
    np.testing.assert_allclose(levels, np.geomspace(1, 0.01, 10), rtol=1e-12)


def test_levels_fall_and_times_are_found_again(path):
    """beta / alpha falls with time; its logarithm's slope is -level_fall; and a level gives back its time."""
    t = inner_times(path)
    level = jnp.exp(path.log_level(t))
    assert np.all(np.diff(level) < 0)
    _, slope = directional_derivative(path.log_level, (t,), (jnp.ones_like(t),))
    np.testing.assert_allclose(path.level_fall(t), -slope, rtol=1e-9)
    np.testing.assert_allclose(path.time_of_level(level), t, atol=1e-12)


def test_relative_expm1_and_its_derivative(float64):
    """(exp(x) - 1) / x against its series in exact rationals, through 0 and across the switch at 0.1."""
    x = np.array([-3.0, -0.1001, -0.0999, -1e-9, 0.0, 1e-9, 0.0999, 0.1001, 3.0])
    terms = [1.0]
    for n in range(2, 60):
        terms.append(terms[-1] / n)
    np.testing.assert_allclose(interpolants.relative_expm1(jnp.array(x)), np.polyval(terms[::-1], x), rtol=1e-14)
    slope = jax.vmap(jax.grad(lambda x: interpolants.relative_expm1(x)))(jnp.array(x))
    np.testing.assert_allclose(slope, np.polyval(np.polyder(terms[::-1]), x), rtol=1e-12)


def test_unknown_names_are_told_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'linear'"):
        interpolants.make("liner")
    with pytest.raises(UsageError, match="did you mean 'sigma_max'"):
        interpolants.make("variance_exploding", sigma_maxx=1.0)
