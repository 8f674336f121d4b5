"""The laws of times against their exact distributions."""

import jax
import numpy as np
import pytest
from scipy import stats

from flowmaps import rows, times
from flowmaps.errors import UsageError

COUNT = 20_000


def keys():
    return rows.keys(jax.random.key(1), 0, COUNT)


def assert_law(draws, cumulative):
    assert stats.kstest(np.asarray(draws, np.float64), cumulative).pvalue > 1e-3


def test_uniform():
    assert_law(times.law("uniform")(keys()), stats.uniform.cdf)


def test_logit_normal():
    draws = np.asarray(times.law("logit_normal", 0.4, 1.5)(keys()), np.float64)
    assert_law(np.log(draws / (1 - draws)), stats.norm(0.4, 1.5).cdf)


def test_within_stretches_to_the_range_of_an_interpolant():
    assert_law(times.within(times.uniform(), 0.2, 0.5)(keys()), stats.uniform(0.2, 0.3).cdf)


def test_sorted_pairs_of_uniform_times_are_uniform_on_the_triangle():
    """P(s <= a) = 1 - (1 - a)^2, P(t <= a) = a^2, and s / t is uniform and independent of t."""
    s, t = times.sorted_pair(times.uniform())(keys())
    assert np.all(s <= t)
    assert_law(s, lambda a: 1 - (1 - a) ** 2)
    assert_law(t, lambda a: a**2)
    assert_law(s / t, stats.uniform.cdf)
    assert abs(np.corrcoef(s / t, t)[0, 1]) < 4 / COUNT**0.5


def test_dyadic_steps_are_equally_often_on_their_own_grids():
    levels = 7
    s, t = (np.asarray(x, np.float64) for x in times.dyadic(levels)(keys()))
    step = t - s
    level = -np.log2(step)
    assert set(level) == set(range(levels))
    assert np.all((s / step) == np.round(s / step))
    assert np.all((s >= 0) & (t <= 1))
    counts = np.bincount(level.astype(int), minlength=levels)
    assert stats.chisquare(counts).pvalue > 1e-3
    fine = s[level == 2] / 0.25
    assert stats.chisquare(np.bincount(fine.astype(int), minlength=4)).pvalue > 1e-3


def test_arctan_log_normal_is_the_trigonometric_paths_level():
    """tan(pi (1 - t) / 2) is log-normal."""
    draws = np.asarray(times.law("arctan_log_normal", -0.8, 1.6)(keys()), np.float64)
    inside = (draws > 1e-4) & (draws < 1 - 1e-4)
    assert inside.mean() > 0.999
    assert_law(np.log(np.tan(np.pi / 2 * (1 - draws[inside]))), stats.norm(-0.8, 1.6).cdf)


def test_sorted_pairs_of_two_laws():
    """P(s > a) = P(both > a), P(t <= a) = P(both <= a)."""
    early, late = times.logit_normal(-0.2, 0.8), times.logit_normal(1.0, 0.8)
    s, t = times.sorted_pair(early, late)(keys())

    def below(mean):
        return lambda a: stats.norm(mean, 0.8).cdf(np.log(a / (1 - a)))

    assert_law(s, lambda a: 1 - (1 - below(-0.2)(a)) * (1 - below(1.0)(a)))
    assert_law(t, lambda a: below(-0.2)(a) * below(1.0)(a))


def test_multiples_are_equally_often():
    drawn = np.asarray(times.multiples(8)(keys())) * 8
    assert np.all(drawn == np.round(drawn))
    assert stats.chisquare(np.bincount(drawn.astype(int), minlength=8)).pvalue > 1e-3


def test_unknown_law():
    with pytest.raises(UsageError, match="did you mean 'logit_normal'"):
        times.law("logitnormal")
