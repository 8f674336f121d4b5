"""The oracles: the four identities, the law of their marginals, and an independent solver."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import gaussian, mixture

from flowmaps import closed_forms, identities, interpolants, rows

pytestmark = pytest.mark.float64

PATHS = {
    "linear": lambda: interpolants.linear(source_std=0.7),
    "trigonometric": lambda: interpolants.trigonometric(source_std=0.7),
    "variance_preserving": lambda: interpolants.variance_preserving(source_std=0.7),
    "variance_exploding": lambda: interpolants.variance_exploding(sigma_max=5.0, source_std=0.7),
    "user": lambda: interpolants.path(lambda t: jnp.sin(t) * t, lambda t: 1 - t**2, source_std=0.7),
}
ORACLES = {"gaussian": (gaussian, 1e-13), "mixture": (lambda path: mixture(path, steps=64), 1e-4)}
"""With the largest residual allowed: rounding, or the Runge-Kutta error of 64 steps."""


@pytest.fixture(params=PATHS)
def path(request, float64):
    return PATHS[request.param]()


@pytest.fixture(params=ORACLES)
def oracle_and_error(request, path):
    make, error = ORACLES[request.param]
    return make(path), error


def draw(path, oracle, count=64):
    keys = rows.keys(jax.random.key(4), 0, count)
    span = 0.98 * (path.t_max - path.t_min)
    s, t = (path.t_min + span * rows.uniform(rows.fold(keys, i)) for i in (2, 3))
    x0 = path.source_std * rows.normal(rows.fold(keys, 1), (2,))
    return path.point(x0, oracle.sample(rows.fold(keys, 0)), s), s, t


def test_all_four_identities(path, oracle_and_error):
    """Tangent, Lagrangian, Eulerian and semigroup, for times in both orders."""
    oracle, error = oracle_and_error
    x, s, t = draw(path, oracle)
    v = oracle.average_velocity

    @jax.jit
    def residuals(x, s, t):
        speed = oracle.velocity(x, s)
        return speed, {
            "tangent": identities.tangent(v, x, s, speed, {}),
            "lagrangian": identities.lagrangian(v, x, s, t, oracle.velocity, {}),
            "eulerian": identities.eulerian(v, x, s, t, speed, {}),
            "eulerian by parts": identities.eulerian(v, x, s, t, speed, {}, through="slope"),
            "semigroup": identities.semigroup(v, v, x, s, t, jnp.linspace(0, 1, 64), {}),
        }

    speed, found = residuals(x, s, t)
    scale = np.abs(speed).max()
    for name, residual in found.items():
        np.testing.assert_allclose(residual, 0, atol=error * scale, err_msg=name)


def test_a_map_back_is_the_inverse(path, oracle_and_error):
    oracle, error = oracle_and_error
    x, s, t = draw(path, oracle)
    there = identities.flow_map(oracle.average_velocity, x, s, t, {})
    back = identities.flow_map(oracle.average_velocity, there, t, s, {})
    np.testing.assert_allclose(back, x, atol=10 * error * np.abs(x).max())


def test_velocity_is_the_conditional_mean(float64):
    """E[dx_t/dt | x_t] is the regression of dx_t/dt on x_t, which for a Gaussian is linear: least squares finds it."""
    path = interpolants.linear(source_std=0.7)
    oracle = gaussian(path)
    keys = rows.keys(jax.random.key(0), 0, 200_000)
    x0, x1 = 0.7 * rows.normal(rows.fold(keys, 1), (2,)), oracle.sample(rows.fold(keys, 0))
    t = jnp.full(len(keys), 0.6)
    x, slope = path.point(x0, x1, t), path.velocity(x0, x1, t)
    design = np.concatenate([np.ones((len(x), 1)), x], axis=1)
    fitted = design @ np.linalg.lstsq(design, slope)[0]
    np.testing.assert_allclose(oracle.velocity(x, t), fitted, atol=0.02)


def test_ends_are_consistent(path, oracle_and_error):
    """x = alpha E[x1|x] + beta E[x0|x], and the score -E[x0|x] / (beta std^2) is the gradient of the log density."""
    oracle, _ = oracle_and_error
    x, s, _ = draw(path, oracle)
    noise, data = oracle.ends(x, s)
    np.testing.assert_allclose(path.point(noise, data, s), x, atol=1e-12)


def test_mixture_score_is_the_gradient_of_its_density(float64):
    path = interpolants.linear(source_std=0.7)
    weights, means, variances = jnp.array([0.3, 0.7]), jnp.array([[1.0, 0.0], [-1.0, 0.5]]), jnp.array([0.1, 0.3])
    oracle = closed_forms.mixture(weights, means, variances[:, None, None] * jnp.eye(2)[None], path)
    x, s, _ = draw(path, oracle)

    def log_density(x, t):
        width = t**2 * variances + ((1 - t) * 0.7) ** 2
        squares = jnp.sum((x[None] - t * means) ** 2, axis=1)
        return jax.nn.logsumexp(jnp.log(weights) - squares / (2 * width) - jnp.log(width))

    expected = jax.vmap(jax.grad(log_density))(x, s)
    np.testing.assert_allclose(path.score(oracle.ends(x, s).noise, s), expected, rtol=1e-9, atol=1e-11)


def test_mixture_flow_against_an_adaptive_solver(float64):
    import diffrax

    path = interpolants.linear(source_std=0.7)
    oracle = mixture(path, steps=64)
    x, s, t = draw(path, oracle, count=8)

    def solve(x, s, t):
        term = diffrax.ODETerm(lambda time, x, _: oracle.velocity(x[None], time[None])[0])
        control = diffrax.PIDController(rtol=1e-11, atol=1e-11)
        out = diffrax.diffeqsolve(term, diffrax.Dopri8(), s, t, None, x, stepsize_controller=control)
        return out.ys[0]

    exact = jax.vmap(solve)(x, s, t)
    np.testing.assert_allclose(identities.flow_map(oracle.average_velocity, x, s, t, {}), exact, atol=1e-6)


def test_one_mode_of_a_mixture_is_the_gaussian(path):
    mean, covariance = jnp.array([0.4, -0.3]), jnp.array([[0.09, 0.03], [0.03, 0.05]])
    alone = closed_forms.mixture(jnp.ones(1), mean[None], covariance[None], path, steps=64)
    whole = closed_forms.gaussian(mean, covariance, path)
    x, s, t = draw(path, whole)
    np.testing.assert_allclose(alone.velocity(x, s), whole.velocity(x, s), rtol=1e-10, atol=1e-10)
    pair = alone.average_velocity(x, s, t, {}), whole.average_velocity(x, s, t, {})
    np.testing.assert_allclose(*pair, atol=1e-5 * np.abs(pair[1]).max())


def test_data_on_a_line_have_a_flow(float64):
    """A singular covariance: the map at t = 1 lands on the line."""
    path = interpolants.linear()
    oracle = closed_forms.gaussian(jnp.array([1.0, 2.0]), jnp.array([[1.0, 1.0], [1.0, 1.0]]), path)
    x = jax.random.normal(jax.random.key(0), (32, 2))
    end = identities.flow_map(oracle.average_velocity, x, jnp.zeros(32), jnp.ones(32), {})
    np.testing.assert_allclose(end[:, 1] - end[:, 0], 1.0, atol=1e-7)
