"""The benchmark of methods: which configs it takes, and one job on a core at a time."""

import subprocess

import pytest

from configs import base
from scripts import benchmark_methods as benchmark


def test_it_takes_the_few_step_methods_and_the_baseline():
    names = benchmark.few_step_configs()
    methods = ("lsd", "esd", "psd_m", "psd_u", "mean_flow", "shortcut", "flow_matching")
    assert {f"{method}_{data}" for method in methods for data in ("checker", "digits")} <= set(names)
    assert {"edm_checker", "ot_cfm_checker", "imle_digits", "lsd_images", "base"}.isdisjoint(names)
    for name in names:
        benchmark.check(name)


def test_distilled_methods_come_with_the_models_and_pairs_that_they_need(monkeypatch, tmp_path):
    """Each model once, before what learns from it, and the pairs of those that learn from pairs."""
    names, commands = benchmark.distilled_configs(), []
    assert set(names).isdisjoint(benchmark.few_step_configs())
    methods = ("progressive_distillation", "reflow", "cd", "lcm", "tcm", "cmt", "lmd", "ctm_distilled")
    assert {f"{method}_{data}" for method in methods for data in ("checker", "digits")} <= set(names)
    monkeypatch.chdir(tmp_path)

    def main_py(*arguments):
        commands.append(arguments)
        name, mode = arguments[0].removeprefix("--config=configs/").removesuffix(".py"), arguments[1]
        made = tmp_path / "runs" / name
        if mode == "--mode=train":
            made.mkdir(parents=True)
            (made / "report.html").touch()
        else:
            (made / ("trajectories" if "--config.sample.points=16" in arguments else "pairs")).mkdir(exist_ok=True)

    monkeypatch.setattr(benchmark, "main_py", main_py)
    models = benchmark.prepare(
        ["reflow_digits", "tcm_digits", "cmt_digits", "lmd_digits", "knowledge_distillation_digits"]
    )
    assert [str(model) for model in models] == ["runs/flow_matching_digits", "runs/ect_digits", "runs/edm_digits"]
    once = list(dict.fromkeys(command[:2] for command in commands))  # what makes pairs makes the missing ones
    assert once == [
        ("--config=configs/flow_matching_digits.py", "--mode=train"),
        ("--config=configs/flow_matching_digits.py", "--mode=sample"),
        ("--config=configs/ect_digits.py", "--mode=train"),
        ("--config=configs/edm_digits.py", "--mode=train"),
        ("--config=configs/edm_digits.py", "--mode=sample"),
    ]
    assert "--config.sample.solver=heun" in commands[1] and "--config.sample.solver=heun" not in commands[4]


def test_another_network_is_refused(monkeypatch):
    bundle = base.checker("flow_matching")
    bundle.network.width = 64
    monkeypatch.setitem(benchmark.BUNDLES, "checker", lambda method: bundle)
    with pytest.raises(SystemExit, match="lsd_checker has another network"):
        benchmark.check("lsd_checker")
    with pytest.raises(SystemExit, match="foo_checker is not the name of a config"):
        benchmark.check("foo_checker")
    benchmark.check("lsd_checker", as_configured=True)


def test_a_run_is_named_after_its_data_set_and_variant():
    assert benchmark.config_file("edm_rings_residual") == "configs/edm_rings.py:residual"
    assert benchmark.config_file("mean_flow_digits") == "configs/mean_flow_digits.py"
    assert benchmark.read("edm_rings_residual").network.residual and not benchmark.read("edm_rings").network.residual
    assert "--config=configs/edm_rings.py:residual" in benchmark.pairs_command(benchmark.read("dmd_rings"))


@pytest.fixture
def jobs(tmp_path):
    return [benchmark.Job("lsd_checker", seed, 10, tmp_path / f"seed{seed}") for seed in range(5)]


def test_each_core_has_one_job_at_a_time_and_what_is_finished_none(jobs, monkeypatch):
    begun, before = [], {}

    def start(job, core):
        assert core not in before or before[core].poll() is not None
        begun.append(job)
        before[core] = subprocess.Popen(
            f"sleep 0.2; mkdir -p {job.workdir}; touch {job.workdir}/report.html", shell=True
        )
        return before[core]

    monkeypatch.setattr(benchmark, "start", start)
    benchmark.train(jobs[:1], ["0"])
    benchmark.train(jobs, ["0", "1"])
    assert begun == jobs and set(before) == {"0", "1"}
    assert all(map(benchmark.finished, jobs))


def test_where_one_fails_the_others_end(jobs, monkeypatch):
    children = []

    def start(job, core):
        children.append(subprocess.Popen(["false"] if core == "0" else ["sleep", "60"]))
        return children[-1]

    monkeypatch.setattr(benchmark, "start", start)
    with pytest.raises(SystemExit, match=r"seed0 did not finish: see .*seed0.log"):
        benchmark.train(jobs, ["0", "1"])
    assert [child.poll() for child in children] == [1, -15]


def test_the_table_names_what_is_not_finite():
    line = {
        "label": "a",
        "passes_per_row": 3.0,
        "passes": 2e6,
        "minutes": 1.5,
        "measurements": {"w2/1": 0.25, "w2/2": None},
    }
    assert benchmark.table([line]).splitlines()[-1] == "| a | 3.00 | 2 | 90 | 0.25 | not finite |"


def test_the_table_has_all_numbers_of_steps_and_nothing_where_one_was_not_measured():
    cost = {"passes_per_row": 3.0, "passes": 2e6, "minutes": 1.5}
    lines = [
        {"label": name, **cost, "measurements": dict(found)}
        for name, found in (("a", {"w2/1": 1.0}), ("b", {"w2/2": 2.0}))
    ]
    head, _, *rows = benchmark.table(lines).splitlines()
    assert head.endswith("| w2/1 | w2/2 |")
    assert rows == ["| a | 3.00 | 2 | 90 | 1 |  |", "| b | 3.00 | 2 | 90 |  | 2 |"]
