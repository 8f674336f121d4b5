"""Likelihood by the ODE: closed forms, unbiased traces, round trips."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import SOURCE_STD, gaussian, mixture

from flowmaps import interpolants, rows, solvers
from flowmaps.errors import UsageError
from flowmaps.solvers import likelihood

pytestmark = pytest.mark.float64

LINEAR = interpolants.linear(source_std=SOURCE_STD)


def velocity_of(oracle):
    return lambda x, s, t, cond, *, dropout=None: oracle.velocity(x, s)


def keys(count):
    return rows.keys(jax.random.key(0), 0, count)


def log_normal(x, mean, covariance):
    centred = x - mean
    inside = np.einsum("bi,ij,bj->b", centred, np.linalg.inv(covariance), centred)
    return -inside / 2 - np.log(np.linalg.det(2 * np.pi * covariance)) / 2


TIGHT = {"rtol": 1e-8, "atol": 1e-8}


@pytest.mark.parametrize("path", ["linear", "trigonometric", "variance_exploding"])
def test_the_log_density_of_a_gaussian(path):
    """On the exploding path the source alone stands for its sum with the data, whose mean is 0.4 / 80 of its spread."""
    path = interpolants.make(path, source_std=1.0 if path == "variance_exploding" else SOURCE_STD)
    oracle = gaussian(path)
    x = oracle.sample(keys(16))
    end = 0.999 if path.t_max == 1.0 and path.beta.value(jnp.ones(())) == 0 else 1.0
    out = likelihood.log_likelihood(velocity_of(oracle), path, x, keys(16), {}, last=end, **TIGHT)
    t = jnp.full(1, end)
    a, b = float(path.alpha.value(t)[0]), float(path.beta.value(t)[0]) * path.source_std
    covariance = a**2 * np.array([[0.09, 0.03], [0.03, 0.05]]) + b**2 * np.eye(2)
    exact = log_normal(np.asarray(x), a * np.array([0.4, -0.3]), covariance)
    np.testing.assert_allclose(out.log_density, exact, atol=1e-5 if path.source_std != 1 else 0.02)
    assert out.nfe > 0


def test_the_log_density_of_a_mixture():
    oracle = mixture(LINEAR)
    x = oracle.sample(keys(16))
    out = likelihood.log_likelihood(velocity_of(oracle), LINEAR, x, keys(16), {}, last=0.99, **TIGHT)
    noise = (0.01 * SOURCE_STD) ** 2 * np.eye(2)
    parts = [
        np.log(weight) + log_normal(np.asarray(x), 0.99 * np.array(mean), 0.99**2 * np.array(covariance) + noise)
        for weight, mean, covariance in [
            (0.25, [0.6, 0.4], [[0.02, 0.0], [0.0, 0.03]]),
            (0.75, [-0.3, -0.2], [[0.05, 0.02], [0.02, 0.04]]),
        ]
    ]
    np.testing.assert_allclose(out.log_density, np.logaddexp(*parts), atol=1e-5)


@pytest.mark.parametrize("probe", ["rademacher", "gaussian"])
def test_hutchinsons_trace_is_unbiased(probe):
    """Its mean over probes is the exact log-density, within 4 standard errors, and its spread is not zero."""
    oracle, count = mixture(LINEAR), 512
    x = jnp.repeat(oracle.sample(keys(2))[1:], count, axis=0)
    loose = {"rtol": 1e-6, "atol": 1e-6, "last": 0.95}
    exact = likelihood.log_likelihood(velocity_of(oracle), LINEAR, x[:1], keys(1), {}, **loose).log_density
    estimates = likelihood.log_likelihood(
        velocity_of(oracle), LINEAR, x, keys(count), {}, trace="hutchinson", probe=probe, **loose
    ).log_density
    error = np.std(estimates, ddof=1) / count**0.5
    assert error > 1e-3
    np.testing.assert_allclose(estimates.mean(), exact[0], atol=4 * error)


def test_signs_have_no_variance_where_the_jacobian_is_diagonal():
    path = interpolants.linear()

    def velocity(x, s, t, cond, *, dropout=None):
        return jnp.sin(3 * x) * (1 + s)[:, None]

    x = jax.random.normal(jax.random.key(1), (8, 3))
    exact, estimate = (
        likelihood.log_likelihood(velocity, path, x, keys(8), {}, trace=trace, **TIGHT).log_density
        for trace in ("exact", "hutchinson")
    )
    np.testing.assert_allclose(estimate, exact, atol=1e-6)


def test_images_and_rows_stand_alone():
    """The density of an image is that of its numbers; and a row's does not depend on those beside it."""
    path = interpolants.linear()

    def velocity(x, s, t, cond, *, dropout=None):
        return -x * jnp.arange(1.0, 5).reshape(1, 2, 2, 1) / 4 * (1 + cond["label"])[:, None, None, None]

    x, label = jax.random.normal(jax.random.key(1), (4, 2, 2, 1)), jnp.array([0, 1, 0, 1])
    out = likelihood.log_likelihood(velocity, path, x, keys(4), {"label": label}, **TIGHT)
    scale = np.exp(np.arange(1, 5) / 4 * (1 + np.asarray(label))[:, None])
    latent = np.asarray(x).reshape(4, 4) * scale
    exact = (-(latent**2) / 2 - np.log(2 * np.pi) / 2 + np.log(scale)).sum(1)
    np.testing.assert_allclose(out.log_density, exact, atol=1e-5)
    alone = likelihood.log_likelihood(velocity, path, x[2:3], keys(4)[2:3], {"label": label[2:3]}, **TIGHT)
    np.testing.assert_allclose(alone.log_density[0], out.log_density[2], rtol=1e-12)


def test_bits_per_dimension():
    """Uniform bytes cost 8 bits: their density is 1 / 256^d on the levels, 1 on [0, 1]^d, 1 / 2^d on [-1, 1]^d."""
    for density, levels in ((0.0, 256), (-5 * np.log(2), 128), (-5 * np.log(256), 1)):
        bits = likelihood.bits_per_dimension(jnp.full(1, density), 5, levels_per_unit=levels)
        np.testing.assert_allclose(bits, 8)


def test_a_tolerance_out_of_reach_is_told():
    oracle = gaussian(LINEAR)
    x = oracle.sample(keys(2))
    out = likelihood.log_likelihood(velocity_of(oracle), LINEAR, x, keys(2), {}, last=0.9, max_steps=2, **TIGHT)
    assert out.nfe == solvers.GAVE_UP
    with pytest.raises(UsageError, match="unknown probe 'gausian': did you mean 'gaussian'"):
        likelihood.log_likelihood.__wrapped__(velocity_of(oracle), LINEAR, x, keys(2), {}, probe="gausian")
