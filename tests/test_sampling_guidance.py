"""Guidance at sampling: swept over its scales, and by a weaker run in place of no label."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_runs

from flowmaps import evaluate, experiment, generate, measurements, plots, train, trained
from flowmaps.errors import MissingError, UsageError
from flowmaps.guidance import Autoguided
from flowmaps.types import Roles


def digits(**fields):
    return small_runs.digits(method__label_dropout=0.1, eval__metrics=("nn_ratio",), **fields)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Workdirs of two runs of other seeds."""
    found = [tmp_path_factory.mktemp("runs") / name for name in ("strong", "weak")]
    for seed, workdir in enumerate(found):
        small_runs.save(digits(seed=seed), workdir)
    return found


def test_scales_are_measured_one_after_another(runs):
    """Each is what a run of that scale alone is; what is expected is so of the config's own scale."""
    config = digits(eval__guidance=(1.0, 3.0))
    config.eval.update(expected={"nn_ratio/1": 0.5}, expected_at=10)
    rows = evaluate.run(config, runs[0])
    assert measurements.scales(rows) == [1.0, 3.0]
    assert {row["expected"] for row in rows if row["metric"] == "nn_ratio"} == {0.5, None}
    assert all(row["expected"] is None for row in rows if row["guidance"] == 3.0)
    assert (runs[0] / "eval" / "guidance.png").read_bytes().startswith(b"\x89PNG")
    alone = evaluate.run(digits(guidance__scale=3.0), runs[0])
    both = [
        [(r["metric"], r["steps"], r["nfe"], r["value"]) for r in of if r["guidance"] == 3.0] for of in (rows, alone)
    ]
    assert both[0] == both[1] and {row["nfe"] for row in alone if row["reference"] is None} == {2, 6}
    titles = [table.title for table in measurements.tables(rows)]
    assert [title.count("guidance 3") for title in titles] == [0, 1]


def test_the_plot_holds_one_protocol_and_no_mean_over_others(runs, monkeypatch):
    """Other intervals, weaker runs and references are other curves' matter: the latest protocol is drawn."""
    drawn = []
    monkeypatch.setattr("matplotlib.axes.Axes.plot", lambda axis, x, y, *_, **__: drawn.append((list(x), list(y))))
    common = {"metric": "fid_10k", "steps": 1, "better": "lower", "checkpoint": 3, "ema": 0.9, "sampler": "one_step"}
    rows = [
        {**common, "guidance": scale, "guidance_interval": interval, "value": value, "seed": 0, "reference": None}
        for interval, values in (([0.0, 1.0], (5.0, 6.0)), ([0.3, 0.8], (1.0, 2.0)))
        for scale, value in zip((1.0, 2.0), values, strict=True)
    ]
    plots.guidance(rows)
    assert drawn == [([1.0, 2.0], [1.0, 2.0])]


def test_the_last_line_is_of_the_configs_own_scale(runs):
    rows = evaluate.run(digits(eval__guidance=(1.0, 3.0), guidance__scale=3.0), runs[0])
    assert {row["guidance"] for row in evaluate.of_own_scale(digits(guidance__scale=3.0), rows)} == {3.0}


def test_a_weaker_run_guides_by_the_difference_of_the_two(runs, monkeypatch):
    strong, weak = runs
    config = digits(guidance__scale=2.0, guidance__weak=str(weak))
    exp = experiment.build(config, training=False)
    params = next(iter(evaluate.latest(exp, strong)[1].values()))
    program = generate.program(exp, batch_size=16)
    made = generate.samples(exp, program, params, steps=3, seed=0, num_samples=16)
    assert made.nfe == 6
    plain = experiment.build(digits(), training=False)
    bound = experiment.binds(plain)["student"]
    both = [bound(trained.averaged_student(w, plain.config, small_runs.zeros(plain))) for w in runs]
    velocity = Autoguided(*both, 2.0)
    monkeypatch.setattr(experiment, "roles_for_sampling", lambda exp, params: Roles(velocity, velocity))
    by_hand = generate.samples(plain, generate.program(plain, batch_size=16), {}, steps=3, seed=0, num_samples=16)
    np.testing.assert_allclose(made.x, by_hand.x, rtol=1e-5, atol=1e-6)
    row = evaluate.run(config, strong)[0]
    assert (row["guidance"], row["guidance_weak"]) == (2.0, str(weak))
    assert measurements.phrases([row])[-1] == f"guidance 2 by {weak}"


def test_a_weaker_run_needs_no_labels(tmp_path):
    config = small_runs.plane("flow_matching")
    small_runs.save(config, tmp_path)
    config.guidance.update(scale=2.0, weak=str(tmp_path))
    exp = experiment.build(config, training=False)
    params = next(iter(evaluate.latest(exp, tmp_path)[1].values()))
    x, t = jax.random.normal(jax.random.key(0), (4, 2)), jnp.full(4, 0.3)
    guided = experiment.student(exp, params)(x, t, t, {})
    own = experiment.binds(exp)["student"](params["student"])(x, t, t, {})
    np.testing.assert_allclose(guided, own, rtol=1e-5, atol=1e-6)  # by itself it is not guided


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"guidance__scale": 1.0}, UsageError, "guides at no scale: set guidance.scale or eval.guidance"),
        ({"guidance__weak": "nowhere"}, MissingError, "guidance.weak='nowhere' is not the workdir of a run"),
    ],
)
def test_what_a_weaker_run_cannot_do_is_said(runs, changes, error, message):
    fields = {"guidance__scale": 2.0, "guidance__weak": str(runs[1]), **changes}
    for training in (True, False):
        with pytest.raises(error, match=message):
            experiment.build(digits(**fields), training=training)


def test_a_weaker_run_is_of_the_same_data_and_kind(runs, tmp_path):
    with pytest.raises(UsageError, match=r"data\.name digits -> checker"):
        experiment.build(small_runs.plane(guidance__scale=2.0, guidance__weak=str(runs[1])), training=False)
    small_runs.save(small_runs.plane("flow_matching"), tmp_path)
    with pytest.raises(UsageError, match="whose velocities are of another kind than those of 'lsd'"):
        experiment.build(small_runs.plane(guidance__scale=2.0, guidance__weak=str(tmp_path)), training=False)
    with pytest.raises(UsageError, match=r"guides once a run is trained, and train\.eval_every=5 measures before"):
        train.build(digits(guidance__weak=str(runs[1]), guidance__scale=2.0, train__eval_every=5))
