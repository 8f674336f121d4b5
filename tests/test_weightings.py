"""Losses from residuals: values and gradients against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps import weightings

pytestmark = pytest.mark.float64


def squares():
    return jnp.array([0.0, 0.3, 2.0, 50.0])


def test_squared_sums_over_all_dimensions():
    r = jax.random.normal(jax.random.key(0), (3, 4, 5, 2))
    np.testing.assert_allclose(weightings.squared(r), np.sum(np.asarray(r) ** 2, axis=(1, 2, 3)), rtol=1e-14)


def test_squared_of_bfloat16_is_float32():
    assert weightings.squared(jnp.ones((2, 3), jnp.bfloat16)).dtype == jnp.float32


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_adaptive_weight_is_stopped(power):
    """Value q / (q + c)^p, gradient 1 / (q + c)^p: the weight is a constant to it."""
    q, c = squares(), 0.01
    np.testing.assert_allclose(weightings.adaptive(q, power, c), q / (q + c) ** power, rtol=1e-14)
    slope = jax.vmap(jax.grad(lambda q: weightings.adaptive(q, power, c)))(q)
    np.testing.assert_allclose(slope, 1 / (q + c) ** power, rtol=1e-14)


def test_half_power_has_twice_pseudo_hubers_gradient():
    q, c = squares(), 0.3
    huber = jax.vmap(jax.grad(lambda q: weightings.pseudo_huber(q, c)))(q)
    half = jax.vmap(jax.grad(lambda q: weightings.adaptive(q, 0.5, c**2)))(q)
    np.testing.assert_allclose(half, 2 * huber, rtol=1e-13)


def test_pseudo_huber_is_quadratic_then_linear():
    c = 0.5
    small, large = 1e-8, 1e8
    np.testing.assert_allclose(weightings.pseudo_huber(jnp.array(small), c), small / (2 * c), rtol=1e-6)
    np.testing.assert_allclose(weightings.pseudo_huber(jnp.array(large), c), large**0.5 - c, rtol=1e-8)


def test_log_variance_is_minimal_at_the_log_of_the_residual():
    """d/dw [exp(-w) q + w] = 0 at w = log q, where the loss is 1 + log q."""
    q = squares()[1:]
    w = jnp.log(q)
    slope = jax.vmap(jax.grad(weightings.log_variance, argnums=1))(q, w)
    np.testing.assert_allclose(slope, 0, atol=1e-14)
    np.testing.assert_allclose(weightings.log_variance(q, w), 1 + jnp.log(q), rtol=1e-14)
