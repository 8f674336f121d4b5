"""Predictions: each raw output gives the exact velocity when it is what it says, on every path and at its ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps import closed_forms, interpolants, predictions
from flowmaps.errors import UsageError

pytestmark = pytest.mark.float64

DATA_STD = 0.6
PATHS = {
    "linear": lambda: interpolants.linear(source_std=0.8),
    "trigonometric": lambda: interpolants.trigonometric(source_std=0.8),
    "variance_preserving": lambda: interpolants.variance_preserving(source_std=0.8),
    "sub_variance_preserving": lambda: interpolants.sub_variance_preserving(source_std=0.8),
    "variance_exploding": lambda: interpolants.variance_exploding(source_std=0.8),
    "geometric": lambda: interpolants.geometric(source_std=0.8),
    "discrete": lambda: interpolants.discrete(num_steps=10, source_std=0.8),
}


def spread(path, t):
    a, b = path.alpha.value(t), path.beta.value(t)
    return jnp.sqrt((a * DATA_STD) ** 2 + (b * path.source_std) ** 2)[:, None]


def outputs(path, oracle):
    """What a perfect network gives, from the scaled x that it is fed."""

    def ends(scaled, t):
        x = scaled * spread(path, t)
        a, b = (c.value(t)[:, None] for c in (path.alpha, path.beta))
        return x, a, b, *oracle.ends(x, t)

    def edm(scaled, t):
        x, a, b, _, data = ends(scaled, t)
        q = spread(path, t)
        return (data - a * DATA_STD**2 / q**2 * x) * q / (b * DATA_STD * path.source_std)

    return {
        "data": lambda y, t: ends(y, t)[4],
        "noise": lambda y, t: ends(y, t)[3],
        "score": lambda y, t: -ends(y, t)[3] / path.source_std,
        "v": lambda y, t: ends(y, t)[1] * ends(y, t)[3] - ends(y, t)[2] * ends(y, t)[4],
        "edm": edm,
    }


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", [n for n in predictions.PREDICTIONS if n != "velocity"])
def test_a_perfect_output_is_the_exact_velocity(path, name):
    path = PATHS[path]()
    oracle = closed_forms.gaussian(jnp.array([0.4, -0.3]), jnp.array([[0.09, 0.03], [0.03, 0.05]]), path)
    perfect = outputs(path, oracle)[name]
    velocity = predictions.make(name, interpolant=path, data_std=DATA_STD)(
        lambda x, s, t, cond, *, dropout=None: perfect(x, s)
    )
    x = jax.random.normal(jax.random.key(0), (40, 2))
    s = jnp.linspace(path.t_min + 0.07, path.t_max - 0.07, 40)
    exact = oracle.velocity(x, s)
    np.testing.assert_allclose(velocity(x, s, s, {}), exact, atol=1e-9 * np.abs(exact).max())
    t = s[::-1]  # held from s to t it is DDIM's step
    noise, data = oracle.ends(x, s)
    a, b = (c.value(t)[:, None] for c in (path.alpha, path.beta))
    moved = x + (t - s)[:, None] * velocity(x, s, t, {})
    np.testing.assert_allclose(moved, a * data + b * noise, atol=1e-8 * np.abs(moved).max())


def test_edms_coefficients():
    """On x_t = x1 + sigma x0: c_in = 1 / sqrt(sigma^2 + sd^2), c_skip = (sd c_in)^2, c_out = sigma sd c_in."""
    path = interpolants.variance_exploding()
    x, t = jax.random.normal(jax.random.key(0), (9, 3)), jnp.linspace(0, 1, 9)
    seen = []

    def raw(x, s, t, cond, *, dropout=None):
        seen.append(x)
        return jnp.sin(x)

    velocity = predictions.make("edm", interpolant=path, data_std=0.5)(raw)(x, t, t, {})
    sigma = path.beta.value(t)[:, None]
    c_in = 1 / jnp.sqrt(sigma**2 + 0.25)
    np.testing.assert_allclose(seen[0], c_in * x, rtol=1e-12)
    denoised = 0.25 * c_in**2 * x + sigma * 0.5 * c_in * jnp.sin(c_in * x)
    np.testing.assert_allclose(path.ends_from_velocity(x, velocity, t).data, denoised, atol=1e-9)


@pytest.mark.parametrize("name", ["v", "edm"])
def test_regular_at_both_ends(name):
    path = interpolants.linear()
    velocity = predictions.make(name, interpolant=path)(lambda x, s, t, cond, *, dropout=None: jnp.cos(x))
    for s in (0.0, 1.0):
        out = velocity(jnp.ones((2, 2)), jnp.full(2, s), jnp.full(2, 0.5), {})
        assert np.isfinite(out).all() and np.abs(out).max() < 10


def test_unknown_predictions_are_told_the_nearest():
    with pytest.raises(UsageError, match="unknown prediction 'nois': did you mean 'noise'"):
        predictions.make("nois", interpolant=interpolants.linear())
