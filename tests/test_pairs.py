"""Stored pairs: noise and where a run takes it, by index; written in shards that are whole or not there."""

import json
import shutil

import jax.numpy as jnp
import numpy as np
import pytest
import small_runs

from flowmaps import checks, evaluate, experiment, generate, pair_files, pairs
from flowmaps import data as data_sets
from flowmaps.errors import MissingError, UsageError


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    """A run of flow matching on the digits with fresh weights."""
    directory = tmp_path_factory.mktemp("teacher")
    return small_runs.save(config_of_teacher(), directory), directory


def config_of_teacher(**fields):
    config = small_runs.digits(**fields)
    config.method = small_runs.base.part(small_runs.base.methods, "flow_matching")
    return config


@pytest.fixture
def make(teacher, tmp_path, monkeypatch):
    """Makes the teacher's pairs in files of 16, and returns their folder."""
    monkeypatch.setattr(pair_files, "SIZE", 16)
    (tmp_path / "checkpoints").symlink_to(teacher[1] / "checkpoints")

    def run(**fields):
        chosen = {"sample__pairs": 40, "sample__steps": (2, 4), "eval__batch_size": 24, **fields}
        return pairs.run(experiment.build(config_of_teacher(**chosen), training=False), tmp_path)

    return run


def test_a_pair_is_the_sample_of_its_index(teacher, make):
    """x0 is noise of its own index, x1 where four Euler steps take it, with its label; whatever files and batches."""
    exp, directory = teacher
    folder = make()
    found = data_sets.pairs(str(folder), exp.dataset)
    _, averages = evaluate.latest(exp, directory)
    batch = found.batch(np.arange(40))
    velocity, cond = experiment.student(exp, next(iter(averages.values()))), {"label": jnp.arange(40) % 10}
    noise = generate.noise(exp, pairs.pair_keys(0, np.arange(40)))
    np.testing.assert_allclose(batch["x0"], noise, rtol=1e-6)  # two programs, and a rounding between them
    x = jnp.asarray(batch["x0"])
    for step in range(4):
        s = jnp.full(40, step / 4)
        x = x + velocity(x, s, s, cond) / 4
    np.testing.assert_allclose(batch["x1"], x, atol=1e-5)
    np.testing.assert_array_equal(batch["label"], np.arange(40) % 10)
    assert "path" not in batch and len(found) == 40
    for file in folder.glob("*.array_record"):
        file.unlink()
    again = data_sets.pairs(str(make(eval__batch_size=7)), exp.dataset).batch(np.arange(40))
    np.testing.assert_allclose(again["x1"], batch["x1"], atol=1e-6)


def test_no_sample_that_is_measured_starts_from_a_pairs_noise(teacher):
    """Whatever their seeds and indices: else a student would be measured on what it was trained on."""
    exp = teacher[0]
    ours = generate.noise(exp, pairs.pair_keys(0, np.arange(200)))
    theirs = np.concatenate([generate.noise(exp, generate.sample_keys(seed, np.arange(200))) for seed in (0, 1)])
    apart = np.abs(np.asarray(ours)[:, None] - theirs[None]).max(axis=(2, 3, 4))
    assert apart.min() > 0.1


def test_a_trajectory_keeps_states_at_equal_times(teacher, make):
    """The last is the pair's sample, and the one before it where half of the steps lead."""
    exp = teacher[0]
    whole = data_sets.pairs(str(make(sample__points=4)), exp.dataset).batch(np.arange(40))
    shutil.rmtree(make(sample__points=4))
    halves = data_sets.pairs(str(make(sample__points=2)), exp.dataset).batch(np.arange(40))
    single = data_sets.pairs(str(make()), exp.dataset).batch(np.arange(40))
    np.testing.assert_allclose(halves["path"], whole["path"][:, 1::2], atol=1e-6)
    np.testing.assert_allclose(whole["path"][:, -1], single["x1"], atol=1e-6)
    for batch in (whole, halves):
        np.testing.assert_array_equal(batch["path"][:, -1], batch["x1"])


def test_only_missing_files_are_made_again_and_are_the_same(teacher, make):
    folder = make()
    files = sorted(folder.glob("*.array_record"))
    assert [file.name for file in files] == [f"pairs-{n:05d}-of-00003.array_record" for n in range(3)]
    before = {file: (file.read_bytes(), file.stat().st_mtime_ns) for file in files}
    files[1].unlink()
    with pytest.raises(MissingError, match="is not finished, 1 files are missing: give the command that makes it"):
        data_sets.pairs(str(folder), teacher[0].dataset)
    assert make() == folder
    assert {file: file.read_bytes() for file in files} == {file: content for file, (content, _) in before.items()}
    kept = (files[0], files[2])
    assert [file.stat().st_mtime_ns for file in kept] == [before[file][1] for file in kept]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sample__seed": 3}, "holds other pairs, seed 0 and not 3: remove the folder, or make the same"),
        ({"sample__pairs": 41}, "holds other pairs, num_pairs 40 and not 41"),
        ({"sample__steps": (8,)}, "holds other pairs, grid"),
        ({"sample__points": 3}, "sample.points=3 must divide the 4 steps"),
        ({"sample__sampler": "one_step", "sample__points": 2}, "sampler one_step keeps no states on its way"),
        (
            {"sample__solver": "ddim(eta=0.5)"},
            r"diagonal\(ddim\(eta=0.5\)\) adds noise, and a pair tells",
        ),
        ({"sample__grid": "shifted", "sample__points": 2}, "states at equal times: set sample.grid to 'uniform'"),
    ],
)
def test_pairs_that_cannot_be_are_refused(make, fields, message):
    make()
    with pytest.raises(UsageError, match=message):
        make(**fields)


def test_pairs_of_another_guidance_are_other_pairs(teacher, make, monkeypatch):
    """Which no other field tells."""
    make()
    monkeypatch.setattr(checks, "guidance", lambda *_: None)
    with pytest.raises(UsageError, match=r"holds other pairs, guidance 1\.0 and not 2\.0"):
        make(guidance__scale=2.0)


def test_provenance_says_what_made_them(make):
    origin = json.loads((make() / "pairs.json").read_text())
    assert (origin["sampler"], origin["checkpoint"], origin["ema"]) == ("diagonal(euler)", 10, 0.999)
    assert origin["grid"] == [0, 0.25, 0.5, 0.75, 1]
    assert origin["config"]["method"]["name"] == "flow_matching" and origin["environment"]["versions"]["jax"]


def test_batches_from_disk_are_those_from_memory_and_bring_real_data_where_asked(teacher, make, monkeypatch):
    dataset, folder = teacher[0].dataset, make()
    rows = np.array([39, 3, 16, 3])
    kept = data_sets.pairs(str(folder), dataset).batch(rows)
    monkeypatch.setattr("flowmaps.data._pairs.IN_MEMORY", 0)
    found = data_sets.pairs(str(folder), dataset, real=True)
    batch = found.batch(rows, 5, np.array([0, 0, 0, 1]))
    for name, x in kept.items():
        np.testing.assert_array_equal(batch[name], x)
    again = found.batch(rows[:2], 5, 0)
    np.testing.assert_array_equal(again["real"], batch["real"][:2])  # a row's own draw
    assert not np.array_equal(batch["real"][1], batch["real"][3])  # another epoch's
    everything = dataset.train.batch(np.arange(len(dataset.train)))
    for real, label in zip(batch["real"], batch["real_label"], strict=True):
        same = np.all(everything["x1"] == real, axis=(1, 2, 3))
        assert label in everything["label"][same]


def student(folder, **fields):
    config = small_runs.digits(train__batch_size=8, **fields)
    config.method = small_runs.base.part(small_runs.base.methods, "reflow")
    config.coupling = small_runs.base.part(small_runs.base.couplings, "stored", pairs=str(folder))
    return config


def test_a_run_trains_on_pairs_and_is_evaluated_against_the_data(teacher, make):
    exp = experiment.build(student(make()))
    batch = experiment.global_batch(exp, exp.examples.batch(np.arange(8)))
    assert set(batch) == {"x0", "x1", "label"}
    state = experiment.init(exp)
    drawn = np.square(np.asarray(batch["x1"] - batch["x0"])).sum((1, 2, 3)).mean()
    state = state.replace(params={"student": small_runs.zeros(exp)})
    _, metrics = experiment.train_step(exp)(state, batch)
    np.testing.assert_allclose(metrics["flow"], drawn, rtol=1e-5)
    assert exp.dataset.fingerprint == teacher[0].dataset.fingerprint != exp.fingerprint
    assert experiment.build(student("nowhere"), training=False).pairs is None
    assert not generate.tells_score(exp)


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        ({"coupling__scale": 0.5}, UsageError, "is of another kind: coupling.scale 1.0 -> 0.5, from that run"),
        ({"coupling__pairs": "/nowhere"}, MissingError, "coupling.pairs='/nowhere' holds no pairs: make them with"),
        ({"method__real_share": 0.25}, UsageError, "needs the data beside the pairs: set coupling.real=True"),
    ],
)
def test_pairs_of_another_kind_are_refused(make, fields, error, message):
    config = student(make())
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    with pytest.raises(error, match=message):
        experiment.train_step(experiment.build(config))


def test_pairs_of_the_same_data_otherwise_read_are_refused(make):
    with pytest.raises(UsageError, match=r"are of data with the fingerprint .*, and these have"):
        experiment.build(student(make(), data__dequantise=True))


@pytest.mark.parametrize("method", ["reflow", "knowledge_distillation", "consistency_mid_training"])
def test_a_method_of_pairs_has_them(method):
    with pytest.raises(UsageError, match=f"method {method!r} learns from stored pairs: set coupling.name to 'stored'"):
        experiment.build(small_runs.plane(method))


def test_a_student_of_trajectories_is_renoised_by_default_and_by_name(make):
    """Its states had the laws of noised data; others of pairs have no score."""
    config = student(make(sample__points=2))
    config.method = small_runs.base.part(small_runs.base.methods, "knowledge_distillation", points=2)
    exp = experiment.build(config)
    assert generate.make_sampler(exp, "renoising") == generate.make_sampler(exp) == exp.method.sampler
    with pytest.raises(UsageError, match="needs the score"):
        generate.make_sampler(exp, "ancestral")


def test_pairs_of_other_data_are_refused(make):
    config = small_runs.plane("reflow")
    config.coupling = small_runs.base.part(small_runs.base.couplings, "stored", pairs=str(make()))
    with pytest.raises(
        UsageError, match=r"are examples of shape \(8, 8, 1\) in 10 classes, and the data of \(2,\) in 0"
    ):
        experiment.build(config)


def test_trajectories_of_another_path_are_refused(make):
    config = student(make(sample__points=2))
    config.interpolant = small_runs.base.part(small_runs.base.interpolants, "trigonometric")
    with pytest.raises(UsageError, match=r"interpolant\.name linear -> trigonometric"):
        experiment.build(config)
