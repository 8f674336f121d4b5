"""Comparison: the page says what was measured and counted, and what does not belong in one table is not put there."""

import json
import re
import shutil

import launcher
import numpy as np
import pytest
import small_runs
from test_report import Page

from configs import base
from flowmaps import compare, evaluate, experiment, generate, measurements, plots, report
from flowmaps.errors import MissingError, UsageError


def evaluated(directory, **fields):
    """A run of the plane with fresh weights, whose log counts a second a step."""
    config = small_runs.plane(eval__num_samples=64, mesh__data=1, **fields)
    small_runs.save(config, directory)
    (directory / "metrics.jsonl").write_text(
        '{"step": 5, "steps_per_second": 1.0}\n{"step": 10, "steps_per_second": 2}\n'
    )
    evaluate.run(config, directory)
    return directory


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two seeds of a config and one of another, whose solver takes two evaluations a step."""
    root = tmp_path_factory.mktemp("runs")
    heun = {"method": "flow_matching", "sample__solver": "heun"}
    return [
        *(evaluated(root / f"lsd_seed{seed}", seed=seed) for seed in (0, 1)),
        evaluated(root / "heun", seed=3, **heun),
    ]


@pytest.fixture(scope="module")
def compared(runs):
    return compare.lines([compare.read(run) for run in runs])


def rows_of(run):
    return measurements.read(run / "eval" / "measurements.jsonl")


def change(run, **fields):
    """Sets fields of all the measurements of a run."""
    path = run / "eval" / "measurements.jsonl"
    path.write_text("".join(json.dumps({**row, **fields}) + "\n" for row in rows_of(run)))


def reconfigure(run, section, name, value):
    """Sets a field in a run's config.json."""
    config = json.loads((run / "config.json").read_text())
    config[section][name] = value
    (run / "config.json").write_text(json.dumps(config))


def test_the_table_holds_the_measured_values_under_their_evaluations(runs, compared):
    (table,) = compare.quality_tables(compared)
    alone = {row["nfe"]: row["value"] for row in rows_of(runs[2])}
    assert list(alone) == [2, 6] and table.header == ["evaluations", "1", "2", "3", "6"]
    expected = [measurements.number(alone[n]) if n in alone else "" for n in (1, 2, 3, 6)]
    assert table.body[1] == ["heun", *expected]
    assert table.title == "sliced_w2 ↓" and "64 samples" in table.note


def test_seeds_of_a_config_are_one_line_with_mean_and_deviation(runs, compared):
    assert [(line.label, len(line.runs)) for line in compared] == [("lsd", 2), ("heun", 1)]
    values = np.array([[row["value"] for row in rows_of(run)] for run in runs[:2]])
    mean, deviation = values.mean(0), values.std(0, ddof=1)
    assert (deviation > 0).all()
    (table,) = compare.quality_tables(compared)
    cells = [f"{measurements.number(m)} ±{d:.1g}" for m, d in zip(mean, deviation, strict=True)]
    assert table.body[0] == ["lsd", cells[0], "", cells[1], ""]
    summary = compare.summary(compared[0])["measurements"]
    np.testing.assert_allclose([summary["sliced_w2/1"], summary["sliced_w2/3"]], mean)


def test_seeds_of_sampling_are_averaged_within_a_run():
    of_run = {"metric": "kl", "steps": 1, "seed": 0, "num_samples": 50}
    rows = [
        {**of_run, "value": v, "seed": s, "num_samples": n} for v, s, n in ((1.0, 0, 50), (3.0, 1, 50), (9.0, 0, 4))
    ]
    (row,) = compare.merged(rows, seed=7)
    assert (row["value"], row["seed"], row["sampled"], row["num_samples"]) == (2.0, 7, [0, 1], 50)


@pytest.mark.parametrize("method, least, most", [("flow_matching", 3, 3.1), ("lsd", 3.9, 4.2), ("esd", 4.1, 4.5)])
def test_passes_are_counted(method, least, most):
    """A gradient is three passes; a quarter of the rows of LSD cost seven, of ESD more."""
    config = base.checker(method)
    config.mesh.data = 1
    assert least < compare.passes_per_row(experiment.build(config)) < most


def test_all_blocks_of_a_scan_are_counted():
    """Blocks computed anew cost a fourth pass, as where they are written out: a loop alone would count one block."""
    config = base.digits("flow_matching")
    config.mesh.data = 1
    counted = []
    for scan in (False, True):
        shape = {"patch": 2, "width": 32, "depth": 4, "heads": 2}
        config.network = base.part(base.networks, "dit", scan=scan, remat="full", **shape)
        counted.append(compare.passes_per_row(experiment.build(config)))
    assert counted[0] == counted[1]
    assert 3.9 < counted[0] < 4.1


def test_the_cost_is_what_was_counted_times_rows_and_steps_and_what_was_logged(runs, compared):
    for line in compared:
        cost = line.cost
        assert (cost.steps, cost.batch_size) == (10, 256)
        assert cost.passes == cost.passes_per_row * 2560
        assert cost.minutes == (5 / 1 + 5 / 2) / 60
    assert compared[0].cost.passes_per_row > compared[1].cost.passes_per_row
    cells = dict(zip(compare.training_table(compared).header, compare.training_table(compared).body[0], strict=True))
    assert (cells["steps"], cells["minutes"], cells["seeds"]) == ("10", "0.125", "0, 1")


def test_how_a_run_was_cut_over_devices_does_not_change_its_passes(runs, compared, tmp_path):
    run = shutil.copytree(runs[0], tmp_path / "cut")
    reconfigure(run, "mesh", "data", 8)
    reconfigure(run, "train", "accumulate", 4)
    assert compare.cost([compare.read(run)]) == compared[0].cost


def test_a_log_without_speeds_tells_no_minutes():
    assert np.isnan(report.minutes([{"step": 1, "loss": 1.0}]))


def test_identical_weights_make_identical_rows_of_the_picture(tmp_path, monkeypatch):
    shown = []
    monkeypatch.setattr(plots, "image_grid", lambda rows: shown.append(rows) or bytes(24))
    for name, every in (("a", 1), ("b", 2), ("c", 3)):
        config = small_runs.digits(train__log_every=every, seed=int(name == "c"), eval__steps=(1,), mesh__data=1)
        small_runs.save(config, tmp_path / name)
        evaluate.run(config, tmp_path / name)
    compare.run([tmp_path / name for name in "abc"], tmp_path / "out")
    assert [list(rows) for rows in shown] == [["a", "b", "c", "real"]] * 2  # a picture a step count
    for rows in shown:
        np.testing.assert_array_equal(rows["a"], rows["b"])
        assert (rows["a"] != rows["c"]).any()


def test_paths_of_another_scale_start_from_the_same_draws(tmp_path, monkeypatch):
    """Without motion a sample is its noise: the standard normal draw of its index, times the source's deviation."""
    made = {}
    for scale in (0.5, 2.0):
        exp = experiment.build(small_runs.plane(coupling__scale=scale, mesh__data=1))
        monkeypatch.setattr(evaluate, "latest", lambda exp, workdir: (10, {None: small_runs.zeros(exp)}))
        made[scale] = compare.draw(compare.Run(tmp_path, exp, 10, []), [1, 3], 5)
    keys = generate.sample_keys(compare.SEED, np.arange(5))
    for steps in (1, 3):
        np.testing.assert_allclose(made[2.0][steps].x, 4 * made[0.5][steps].x, rtol=1e-6)
        np.testing.assert_allclose(made[2.0][steps].x, generate.noise(exp, keys), rtol=1e-6)


def test_a_run_guided_by_a_weaker_one_is_drawn_by_both(runs, tmp_path):
    """Of scale 0 its samples are those of the weaker run, at twice the evaluations."""
    run = shutil.copytree(runs[0], tmp_path / "guided")
    reconfigure(run, "guidance", "scale", 0.0)
    reconfigure(run, "guidance", "weak", str(runs[1]))
    change(run, guidance=0.0, guidance_weak=str(runs[1]))
    guided, weak = (compare.draw(compare.read(of), [3], 20)[3] for of in (run, runs[1]))
    np.testing.assert_allclose(guided.x, weak.x, rtol=1e-5, atol=1e-6)
    assert guided.nfe == 2 * weak.nfe == 6


def test_names_that_come_twice_are_told_apart_by_their_paths(runs, tmp_path):
    (tmp_path / "other").mkdir()
    run = shutil.copytree(runs[0], tmp_path / "other" / "lsd_seed5")
    reconfigure(run, "train", "log_every", 7)
    labels = [line.label for line in compare.lines([compare.read(runs[0]), compare.read(run)])]
    assert labels == [str(runs[0]), str(run)]


REFUSALS = {
    "no run": (lambda run: shutil.rmtree(run), MissingError, "is not the workdir of a run"),
    "not evaluated": (lambda run: shutil.rmtree(run / "eval"), MissingError, "was never evaluated: .*--mode=eval"),
    "another sampler": (lambda run: change(run, sampler="x"), MissingError, "never evaluated by its own sampler"),
    "another grid": (lambda run: change(run, grid=[0.0, 0.3, 1.0]), MissingError, "by its own sampler"),
    "no checkpoint": (lambda run: shutil.rmtree(run / "checkpoints"), MissingError, "no checkpoint in"),
    "trained on": (lambda run: change(run, checkpoint=5), UsageError, "to step 10 and evaluated at step 5: run"),
    "another data set": (
        lambda run: change(run, dataset="moons", metric="kl"),
        UsageError,
        "another data set than .*, moons and not checker: compare runs on one",
    ),
    "other data": (lambda run: change(run, data="abc"), UsageError, "fingerprint of the data than .*, abc and not"),
    "fewer samples": (
        lambda run: change(run, num_samples=32),
        UsageError,
        "number of samples of sliced_w2 than .*, 32 and not 64: .* --config.eval.num_samples",
    ),
    "other seeds": (lambda run: change(run, seed=4), UsageError, r"sampling seeds of sliced_w2 than .*, \[4\] and not"),
    "the same": (lambda run: reconfigure(run, "train", "steps", 10), UsageError, "of one config and seed: leave one"),
}


@pytest.mark.parametrize("spoil, error, message", REFUSALS.values(), ids=REFUSALS)
def test_what_does_not_belong_in_one_table_is_refused(runs, tmp_path, spoil, error, message):
    run = shutil.copytree(runs[0], tmp_path / "run")
    spoil(run)
    with pytest.raises(error, match=message) as raised:
        compare.run([runs[0], run], tmp_path / "out")
    assert "\n" not in str(raised.value) and str(run) in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_run_is_not_written_over(runs):
    with pytest.raises(UsageError, match=r"--output=.* is the workdir of a run"):
        compare.run(runs, runs[0])


def test_the_program_compares_and_refuses(runs, tmp_path):
    """One page and one line of JSON; or one line on standard error and the exit code."""
    other = shutil.copytree(runs[2], tmp_path / "other")
    change(other, num_samples=32)
    for names, code in (([*runs], 0), ([runs[0], other], 1), ([runs[0], tmp_path / "none"], 2)):
        given = f"--workdir={','.join(map(str, names))}"
        run = launcher.start("--mode=compare", given, f"--output={tmp_path / 'out'}", log=tmp_path / str(code))
        assert run.wait() == code, run.err.read_text()
        assert (run.out.read_text() == "") == (code > 0)
    done = json.loads((tmp_path / "0.out").read_text())
    assert [line["label"] for line in done["lines"]] == ["lsd", "heun"]
    assert done["report"] == str(tmp_path / "out" / "report.html")
    text = (tmp_path / "out" / "report.html").read_text()
    page = Page(text)
    assert len(page.pictures()) == 3  # the plot, and a picture for each step count
    assert not re.search(r"https?:|url\(|@import|//", re.sub(r"base64,[^\"]*", "", text))
    assert {"3 runs on checker", "lsd", "heun", "Cost of training"} <= {word.partition(" ·")[0] for word in page.words}
