"""Latents: encoding and decoding, and the arc between two of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import SOURCE_STD, gaussian, mixture

from flowmaps import interpolants, rows
from flowmaps.identities import flow_map
from flowmaps.solvers import latents

pytestmark = pytest.mark.float64

TIGHT = {"rtol": 1e-8, "atol": 1e-8}


def of(oracle):
    return lambda x, s, t, cond, *, dropout=None: oracle.velocity(x, s)


@pytest.mark.parametrize("path", ["linear", "trigonometric"])
def test_the_latent_is_that_of_the_exact_map(path):
    path = interpolants.make(path, source_std=SOURCE_STD)
    oracle = gaussian(path)
    x = oracle.sample(rows.keys(jax.random.key(0), 0, 16))
    latent = jax.jit(lambda x: latents.encode(of(oracle), path, x, {}, **TIGHT).x)(x)
    exact = flow_map(oracle.average_velocity, x, jnp.ones(16), jnp.zeros(16), {})
    np.testing.assert_allclose(latent, exact, atol=1e-6)


def test_decoding_takes_the_latent_back():
    path = interpolants.variance_preserving(source_std=SOURCE_STD)
    velocity = of(mixture(path))
    x = mixture(path).sample(rows.keys(jax.random.key(0), 0, 16))

    @jax.jit
    def there_and_back(x):
        encoded = latents.encode(velocity, path, x, {}, **TIGHT)
        return latents.decode(velocity, path, encoded.x, {}, **TIGHT).x, encoded.nfe

    back, nfe = there_and_back(x)
    assert nfe > 0
    np.testing.assert_allclose(back, x, atol=1e-5)


def test_slerp():
    """Keeps the norm of latents of equal norm, ends where it should, and is linear where they are parallel."""
    one = jax.random.normal(jax.random.key(0), (5, 3, 2))
    other = jax.random.normal(jax.random.key(1), (5, 3, 2))
    one, other = (v / jnp.linalg.norm(v.reshape(5, -1), axis=1)[:, None, None] for v in (one, other))
    share = jnp.linspace(0, 1, 5)
    between = latents.slerp(one, other, share)
    np.testing.assert_allclose(jnp.linalg.norm(between.reshape(5, -1), axis=1), 1, rtol=1e-12)
    np.testing.assert_allclose(between[0], one[0], atol=1e-12)
    np.testing.assert_allclose(between[-1], other[-1], atol=1e-12)
    np.testing.assert_allclose(latents.slerp(one, one, share), one, rtol=1e-12)
