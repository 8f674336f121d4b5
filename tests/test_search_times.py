"""The search for the times of re-noising steps."""

import pytest
import small_runs

from flowmaps import experiment
from flowmaps.errors import UsageError
from scripts import search_times


def test_times_are_found_one_after_another(monkeypatch):
    """Each minimises the metric behind those before it: here the distance from 0.3, then from 0.6."""
    asked = []

    def quality(exp, program, judge, params, metric, times):
        asked.append(times)
        return (times[-2] - 0.3 * (len(times) - 2)) ** 2

    monkeypatch.setattr(search_times, "quality", quality)
    exp = experiment.build(small_runs.digits())
    times = search_times.search(exp, {}, "fd_digits", steps=3)
    assert times[0] == 0 and times[-1] == 1
    assert times[1] == pytest.approx(0.3, abs=search_times.TOLERANCE)
    assert times[2] == pytest.approx(0.6, abs=search_times.TOLERANCE)
    assert all(past[1] == times[1] for past in asked if len(past) == 4)
    assert search_times.grid((0.0, 0.25, 1.0)) == "given(times=(0, 0.25, 1))"


def test_an_unknown_metric_is_named():
    with pytest.raises(UsageError, match="unknown metric 'fd_digit': did you mean 'fd_digits'"):
        search_times.search(experiment.build(small_runs.digits()), {}, "fd_digit", steps=2)
