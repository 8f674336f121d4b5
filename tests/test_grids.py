"""Grids of times."""

import numpy as np
import pytest
from two_modes import PATHS

from flowmaps import interpolants, solvers
from flowmaps.errors import UsageError
from flowmaps.solvers import grids

pytestmark = pytest.mark.float64


def test_noise_levels_are_in_units_of_x():
    """Karras' levels and the log-normal law are of source_std beta / alpha."""
    one, other = (interpolants.linear(source_std=s) for s in (1.0, 0.5))
    levels = [
        s * np.exp(-solvers.coefficients(p, grids.make("karras", p, 5)[:-1]).log_snr)
        for p, s in ((one, 1), (other, 0.5))
    ]
    np.testing.assert_allclose(*levels, rtol=1e-6)


def test_grids():
    linear, karras = PATHS["linear"](), interpolants.variance_exploding()
    log_snr = grids.make("log_snr(first=0.01,last=0.99)", linear, 8)
    np.testing.assert_allclose(log_snr[[0, -2, -1]], [0.01, 0.99, 1], atol=1e-9)
    np.testing.assert_allclose(np.diff(solvers.coefficients(linear, log_snr[:-1]).log_snr, n=2), 0, atol=1e-8)
    np.testing.assert_allclose(grids.make("karras", karras, 8), np.linspace(0, 1, 9), atol=1e-9)
    sigma = np.exp(-solvers.coefficients(linear, grids.make("karras", linear, 5)[:-1]).log_snr)
    np.testing.assert_allclose(sigma, np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 5) ** 7, rtol=1e-6)
    np.testing.assert_allclose(grids.make("shifted(shift=3.0)", linear, 2), [0, 1 - 1.5 / 2, 1])
    np.testing.assert_array_equal(grids.make("given(times=(0, 0.3, 1))", linear, 2), [0, 0.3, 1])
    for steps in (1, 2, 3):
        for name in ("karras", "log_snr(first=0.01,last=0.99)", "uniform"):
            assert len(grids.make(name, linear, steps)) == steps + 1


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("karas", "unknown grid 'karas': did you mean 'karras'"),
        ("log_snr", "the log-SNR of this path is infinite at time 0"),
        ("log_snr(first=0.1)", "the log-SNR of this path is infinite at time 1"),
        ("given(times=(0, 1))", "has 2 times, and 4 steps need 5"),
        ("given(times=(0, 0.5, 0.4, 0.8, 1))", "they must rise within"),
        ("uniform(first=-0.5)", "they must rise within"),
    ],
)
def test_what_a_grid_cannot_be_is_one_line(grid, message):
    with pytest.raises(UsageError, match=message):
        grids.make(grid, PATHS["linear"](), 4)
