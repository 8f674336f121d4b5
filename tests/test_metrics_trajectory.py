"""Straightness and curvature against ways whose integrals are known."""

import jax.numpy as jnp
import numpy as np

from flowmaps import data, interpolants, metrics
from flowmaps.metrics import trajectory


def test_one_speed_in_a_straight_line_is_straight():
    def velocity(x, s, t, cond, *, dropout=None):
        return jnp.ones_like(x)

    values, nfe = metrics.load("straightness").compute(velocity, interpolants.linear(), data.load("checker"), 0)
    np.testing.assert_allclose(list(values.values()), 0, atol=1e-4)
    assert nfe == trajectory.STEPS


def test_a_straight_line_at_changing_speed():
    """Z_t = t^2 e: int (1 - 2t)^2 dt = 1/3, and the velocity changes by 2."""
    path = (np.linspace(0, 1, 1001) ** 2)[:, None, None] * np.ones((1, 1, 1))
    np.testing.assert_allclose(trajectory.straightness(path), 1 / 3, rtol=1e-5)
    np.testing.assert_allclose(trajectory.curvature(path), 2, rtol=2e-3)


def test_a_circle():
    """Radius r, angle w: the mean of |Z_1 - Z_0 - Z'|^2 is (r w)^2 - |Z_1 - Z_0|^2, and |Z''| is r w^2 throughout."""
    r, w = 0.7, 2.0
    angle = w * np.linspace(0, 1, 2001)
    path = r * np.stack([np.cos(angle), np.sin(angle)], axis=-1)[:, None]
    np.testing.assert_allclose(trajectory.straightness(path), (r * w) ** 2 - (2 * r * np.sin(w / 2)) ** 2, rtol=1e-5)
    np.testing.assert_allclose(trajectory.curvature(path), r * w**2, rtol=1e-3)
