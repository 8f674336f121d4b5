"""Evaluation: what is measured, what is said about it, and that saying it twice changes nothing."""

import csv
import json

import numpy as np
import pytest
import small_runs

from flowmaps import evaluate, experiment, generate, measurements, metrics
from flowmaps.errors import MissingError, UsageError
from flowmaps.types import Roles


@pytest.fixture(scope="module")
def checker(tmp_path_factory):
    """A run on the plane, evaluated: its config, workdir and rows."""
    config = small_runs.plane(
        eval__seeds=(0, 1), eval__ema=(0, -1), eval__samplers=("default", "diagonal"), eval__metrics=("w2", "kl_paper")
    )
    config.eval.update(expected={"w2/3": 0.25}, expected_at=10)
    directory = tmp_path_factory.mktemp("runs") / "lsd_checker"
    small_runs.save(config, directory)
    return config, directory, evaluate.run(config, directory)


def without_seconds(rows):
    return [{**row, "seconds": None} for row in rows]


def test_the_sweep_is_complete(checker):
    _, _, rows = checker
    found = [(r["ema"], r["sampler"], r["seed"], r["steps"], r["metric"]) for r in rows]
    assert found == [
        (ema, sampler, seed, steps, metric)
        for ema in (0.999, None)
        for sampler in ("composed", "diagonal(euler)")
        for seed in (0, 1)
        for steps in (1, 3)
        for metric in ("w2", "kl_paper")
    ]


def test_a_row_tells_its_whole_protocol(checker):
    config, _, rows = checker
    row = next(r for r in rows if r["steps"] == 3 and r["seed"] == 1)
    exp = experiment.build(config)
    expected = {
        **{"metric": "w2", "better": "lower", "expected": 0.25, "num_samples": 400, "steps": 3, "nfe": 3},
        **{"guidance_interval": [0.0, 1.0], "guidance_weak": None, "against": None},
        **{"sampler": "composed", "guidance": 1.0, "seed": 1, "reference": None, "ema": 0.999, "checkpoint": 10},
        **{"config": "lsd_checker", "method": "lsd", "dataset": "checker", "data": exp.dataset.fingerprint},
        **{"device": "cpu", "floor": metrics.load("w2").floor(exp.dataset, 1, 400)["w2"]},
    }
    assert {name: row[name] for name in expected} == expected
    np.testing.assert_allclose(row["grid"], [0, 1 / 3, 2 / 3, 1], rtol=1e-6)
    assert {"jax", "numpy", "python", "flowmaps"} <= row["versions"].keys()
    assert set(row) - set(expected) == {"value", "grid", "versions", "seconds"}


def test_expected_numbers_stand_beside_what_they_are_of(checker):
    """The weights, sampler and step that they were measured with; others have none."""
    config, _, rows = checker
    said = {(r["ema"], r["sampler"], r["steps"], r["metric"]) for r in rows if r["expected"] is not None}
    assert said == {(0.999, "composed", 3, "w2")}
    assert config.eval.expected_at == 10


def test_every_number_has_its_floor(checker):
    config, _, rows = checker
    dataset = experiment.build(config).dataset
    for row in rows:
        exact = metrics.load(row["metric"]).floor(dataset, row["seed"], row["num_samples"])
        assert row["floor"] == exact[row["metric"]]


def test_the_files_hold_what_was_measured(checker):
    _, directory, rows = checker
    assert measurements.read(directory / "eval" / "measurements.jsonl") == rows
    with (directory / "eval" / "table.csv").open() as file:
        lines = list(csv.DictReader(file))
    for line, row in zip(lines, rows, strict=True):
        assert line == {name: "" if row[name] is None else str(row[name]) for name in measurements.COLUMNS}
    assert (directory / "eval" / "quality.png").read_bytes().startswith(b"\x89PNG")


def test_evaluating_again_changes_only_the_seconds(checker):
    config, directory, rows = checker
    before = {path.name: path.read_bytes() for path in (directory / "eval").iterdir()}
    again = evaluate.run(config, directory)
    assert without_seconds(again) == without_seconds(rows)
    kept = measurements.read(directory / "eval" / "measurements.jsonl")
    assert [json.dumps(row) for row in without_seconds(kept)] == [json.dumps(row) for row in without_seconds(rows)]
    assert before.keys() == {path.name for path in (directory / "eval").iterdir()}
    assert before["quality.png"] == (directory / "eval" / "quality.png").read_bytes()


def test_the_table_is_in_the_log(checker, caplog):
    config, directory, rows = checker
    with caplog.at_level("INFO", logger="absl"):
        evaluate.run(config, directory)
    for table in measurements.tables(rows):
        assert measurements.as_text(table) in caplog.text
    assert "floor" in caplog.text and "  expected" in caplog.text


def test_a_value_is_the_metric_of_the_samples(monkeypatch):
    def still(x, s, t, cond, *, dropout=None):
        return 0 * x

    exp = experiment.build(small_runs.digits(eval__metrics=("manifold",)))
    monkeypatch.setattr(experiment, "roles_for_sampling", lambda exp, params: Roles(still, still))
    program, judge = evaluate.program(exp), evaluate.make_judge(exp)
    noise = generate.samples(exp, program, {}, steps=1, seed=4, num_samples=64)
    direct = metrics.load("manifold").compute(noise.x, exp.dataset, np.arange(64) % 10, 4)
    assert len(direct) > 1
    for steps in (1, 3):
        rows = [row for row in evaluate.measure(exp, {}, program, judge, seed=4) if row["steps"] == steps]
        assert {row["metric"]: row["value"] for row in rows} == direct
        assert {row["floor"] for row in rows} == {None}


def test_reference_models_stand_in_the_table(tmp_path):
    config = small_runs.digits(eval__steps=(1,))
    exp = small_runs.save(config, tmp_path)
    rows = evaluate.run(config, tmp_path)
    (reference,) = [row for row in rows if row["reference"]]
    value = metrics.load("fd_digits").references["a Gaussian per class"](exp.dataset, 0)["fd_digits"]
    assert (reference["reference"], reference["value"]) == ("a Gaussian per class", value)
    (table,) = measurements.tables(rows)
    assert table.header == ["steps", "1", "floor", "a Gaussian per class"]
    assert table.body[0][-1] == measurements.number(value)


def test_no_more_is_drawn_than_the_metrics_take():
    exp = experiment.build(small_runs.digits(eval__num_samples=10_000))
    assert evaluate.num_samples(exp) == metrics.load("fd_digits").num_samples == 1_500


def test_without_metrics_there_is_nothing_to_do(tmp_path):
    config = small_runs.plane(eval__metrics=())
    small_runs.save(config, tmp_path)
    assert evaluate.run(config, tmp_path) == []
    assert not (tmp_path / "eval").exists()


def test_the_best_checkpoint_is_measured_where_it_is_not_the_last(tmp_path):
    config = small_runs.plane(eval__steps=(1,))
    small_runs.save(config, tmp_path, steps=(5, 10), scores=(0.1, 0.2))
    assert [row["checkpoint"] for row in evaluate.run(config, tmp_path)] == [10, 5]
    better = tmp_path / "better"
    small_runs.save(config, better, steps=(5, 10), scores=(0.2, 0.1))
    assert [row["checkpoint"] for row in evaluate.run(config, better)] == [10]


def test_the_likelihood_under_a_still_velocity_is_the_sources():
    """Zero weights move nothing: nll is that of N(0, 1/3) in nats on the board, of N(0, 1) in bits a pixel on digits,
    beside the board's entropy log 2. Its steps are its evaluations."""
    config = small_runs.plane(eval__metrics=("nll", "sliced_w2"))
    exp = experiment.build(config)
    program, judge = evaluate.program(exp), evaluate.make_judge(exp)
    (row,) = evaluate.of_model(exp, small_runs.zeros(exp), 0, judge.floor)
    x = exp.dataset.test.batch(np.arange(297), 0)["x1"]
    np.testing.assert_allclose(row["value"], np.mean((3 * x**2).sum(1) / 2 + np.log(2 * np.pi / 3)), rtol=1e-5)
    np.testing.assert_allclose(row["floor"], np.log(2), rtol=1e-6)
    assert row["steps"] == row["nfe"] > 1 and row["sampler"] == "nll"
    assert {r["metric"] for r in evaluate.measure(exp, small_runs.zeros(exp), program, judge)} == {"sliced_w2"}

    exp = experiment.build(small_runs.digits(eval__metrics=("nll",)))
    (row,) = evaluate.of_model(exp, small_runs.zeros(exp), 0, evaluate.make_judge(exp).floor)
    x = exp.dataset.test.batch(np.arange(297))["x1"].reshape(297, -1)
    x = x + np.random.default_rng(0).random((297, 64), np.float32) / 8 - 1 / 16
    nats = np.mean(x**2) / 2 + np.log(2 * np.pi) / 2
    np.testing.assert_allclose(row["value"], nats / np.log(2) + 3, rtol=1e-4)
    assert row["floor"] is None


def test_a_run_with_its_likelihood_has_table_and_plot(tmp_path):
    config = small_runs.plane(eval__metrics=("nll", "w2"), eval__steps=(1,))
    small_runs.save(config, tmp_path)
    assert [row["metric"] for row in evaluate.run(config, tmp_path)] == ["w2", "nll"]
    assert (tmp_path / "eval" / "quality.png").stat().st_size > 1000


def test_a_broken_best_checkpoint_costs_its_own_rows_alone(tmp_path):
    config = small_runs.plane(eval__steps=(1,))
    small_runs.save(config, tmp_path, steps=(5, 10), scores=(0.1, 0.2))
    for path in (tmp_path / "checkpoints" / "5" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(b"broken")
    assert [row["checkpoint"] for row in evaluate.run(config, tmp_path)] == [10]
    assert len((tmp_path / "eval" / "measurements.jsonl").read_text().splitlines()) == 1


def test_without_a_checkpoint_the_error_says_how_to_make_one(tmp_path):
    with pytest.raises(MissingError, match=r"no checkpoint in .*--mode=train"):
        evaluate.run(small_runs.plane(), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"eval__metrics": ("slicedw2",)}, r"unknown metric 'slicedw2': did you mean 'sliced_w2'\?"),
        ({"eval__metrics": ("fd_digits",)}, "metric 'fd_digits' needs digits data"),
        ({"eval__samplers": ("composd",)}, r"unknown sampler 'composd': did you mean 'composed'\?"),
        ({"eval__ema": (1,)}, r"eval.ema=1 is none of the averages 0 \(decay 0.999\); -1: raw weights"),
        ({"eval__steps": (1, 0)}, "0 steps"),
        ({"eval__num_samples": 15}, "eval.num_samples=15: no metric takes fewer than 16"),
    ],
)
def test_wrong_values_are_named_before_anything_is_sampled(tmp_path, monkeypatch, fields, message):
    monkeypatch.setattr(generate, "samples", lambda *_, **__: pytest.fail("sampled"))
    with pytest.raises(UsageError, match=message):
        evaluate.run(small_runs.plane(**fields), tmp_path)
    assert list(tmp_path.iterdir()) == []
