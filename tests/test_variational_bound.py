"""DDPM's bound: never below the entropy, tight with the exact posterior, and its parts in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps import closed_forms, interpolants, rows
from flowmaps.errors import UsageError
from flowmaps.solvers import variational_bound

pytestmark = pytest.mark.float64

LEVELS = 512
COUNT = 2_000
STD = 0.25


def parts(steps, variance, source_std=1.0):
    """Of data N(0.1, STD^2) rounded to LEVELS levels to the unit, under the exact velocity."""
    path = interpolants.discrete(num_steps=steps, source_std=source_std)
    oracle = closed_forms.gaussian(jnp.full(1, 0.1), jnp.full((1, 1), STD**2), path)
    keys = rows.keys(jax.random.key(0), 0, COUNT)
    x = jnp.round(oracle.sample(keys) * LEVELS) / LEVELS
    grid = np.linspace(path.t_min, path.t_max, steps + 1)

    def velocity(x, s, t, cond, *, dropout=None):
        return oracle.velocity(x, s)

    def bound(x, keys):
        return variational_bound.bound(velocity, path, x, grid, keys, {}, levels_per_unit=LEVELS, variance=variance)

    return x, jax.jit(bound)(x, rows.fold(keys, 7))


def information(x):
    """-log of the mass of each level."""
    return -variational_bound.log_mass(x, jnp.full_like(x, 0.1), jnp.full_like(x, STD), 0.5 / LEVELS).sum(1)


def excess(steps, variance, source_std=1.0):
    """Of the bound over the information, mean and standard error."""
    x, terms = parts(steps, variance, source_std)
    found = sum(terms) - information(x)
    return float(found.mean()), float(found.std() / COUNT**0.5)


@pytest.mark.parametrize(("steps", "source_std"), [(50, 1.0), (1000, 1.0), (50, 0.5)])
def test_the_exact_model_reaches_the_information_of_wide_data(steps, source_std):
    """The forward transition's variance is that of the true reverse chain where the data are wide beside its steps."""
    mean, error = excess(steps, "large", source_std)
    assert abs(mean) < 4 * error < 0.11


def test_the_posterior_s_variance_costs_bits_of_wide_data():
    """It is too small for anything but a point, the more so the longer the steps."""
    few, many = (excess(steps, "small")[0] for steps in (50, 1000))
    assert few > 2 * many > 0.8


def test_the_prior_is_what_is_left_of_the_data_at_the_first_time():
    x, terms = parts(50, "large", source_std=0.5)
    path = interpolants.discrete(num_steps=50)
    a, b = (c.value(jnp.zeros(())) for c in (path.alpha, path.beta))
    np.testing.assert_allclose(terms.prior, (a * x[:, 0] / b / 0.5) ** 2 / 2, rtol=1e-10)


def test_with_the_small_variance_each_step_costs_half_the_rise_in_snr():
    """For any model: here one that says 0 of all data, whose error is the data (VDM, arXiv:2107.00630, eq. 13)."""
    path, grid = interpolants.linear(source_std=0.5), np.array([0.2, 0.5, 0.8, 1.0])
    x = jnp.array([[0.5], [-0.25]])

    def velocity(x, s, t, cond, *, dropout=None):
        return path.velocity(*path.ends_from_data(x, jnp.zeros_like(x), s), s)

    keys = rows.keys(jax.random.key(0), 0, 2)
    terms = variational_bound.bound(velocity, path, x, grid, keys, {}, levels_per_unit=8, variance="small")
    snr = (grid[:-1] / (1 - grid[:-1]) / 0.5) ** 2
    np.testing.assert_allclose(terms.chain, (snr[-1] - snr[0]) / 2 * x[:, 0] ** 2, rtol=1e-10)


def test_masses_of_all_levels_sum_to_one():
    levels = jnp.linspace(-1, 1, 17)[:, None]
    for mean, std in ((0.3, 0.1), (-1.2, 0.5), (0.0, 1e-3), (5.0, 0.3)):
        mass = jnp.exp(variational_bound.log_mass(levels, jnp.full((17, 1), mean), jnp.full((17, 1), std), 1 / 16))
        np.testing.assert_allclose(mass.sum(), 1, rtol=1e-9)


def test_what_cannot_be_bounded_is_one_line():
    x, keys, path = jnp.ones((2, 1)), rows.keys(jax.random.key(0), 0, 2), interpolants.linear()
    for grid, variance, message in (([0, 0.5, 1], "lrage", "did you mean 'large'"), ([0, 1], "large", "at least 2")):
        with pytest.raises(UsageError, match=message):
            variational_bound.bound.__wrapped__(
                None, path, x, np.array(grid, float), keys, {}, levels_per_unit=8, variance=variance
            )
