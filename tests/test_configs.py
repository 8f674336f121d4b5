"""Every config: short, complete, and able to take a step at its own shapes, shrunk in width, depth and batch alone."""

import importlib
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import small_celeba
import small_features
import small_runs
from ml_collections import ConfigDict
from PIL import Image

from configs import base
from flowmaps import ema, evaluate, experiment, methods, sample, state, trained, workdir
from flowmaps.checkpoints import Checkpoints
from flowmaps.errors import UsageError
from scripts import prepare_images

FOLDER = Path(base.__file__).parent
NAMES = sorted(p.stem for p in FOLDER.glob("*.py") if p.stem not in ("base", "__init__"))
OF_USERS = ("celeba", "cifar10", "images", "imagenet64", "imagenet256", "afhq", "fashion_mnist")
"""Data that the user brings."""
IN_MEMORY = [n for n in NAMES if not n.endswith(OF_USERS)]


FASTER = {"xla_cpu_use_fusion_emitters": False}
"""Compiles a training step in half the time, at the price of bits that agree between programs."""


def load(run: str) -> ConfigDict:
    """The config of a run by the name of its workdir, CONFIG or CONFIG_VARIANT."""
    name = max((name for name in NAMES if f"{run}_".startswith(f"{name}_")), key=len)
    variant = run[len(name) + 1 :]
    return importlib.import_module(f"configs.{name}").get_config(*filter(None, [variant]))


SMALL = {"dit": {"heads": 2}, "in_context_dit": {"heads": 2, "head_depth": 1}, "edm2_unet": {"head_width": 4}}
"""Network -> what of it goes with a small width and depth."""


def shrink(config: ConfigDict) -> ConfigDict:
    config.network.update({"width": 16, "depth": 2})
    config.players.critic.network.update({"width": 8, "depth": 2})
    config.network.update(SMALL.get(config.network.name, {}))
    config.train.batch_size = 256
    if "every" in config.method:
        config.method.every = 1  # periods are test_players' matter
    config.mesh.data = 1  # devices are test_train_step's matter, and eight take longer to compile for
    return config


@pytest.mark.parametrize("name", NAMES)
def test_a_config_is_at_most_fifteen_lines_beside_its_docstring(name):
    module = importlib.import_module(f"configs.{name}")
    code = (FOLDER / f"{name}.py").read_text().replace(module.__doc__, "")
    assert len([line for line in code.splitlines() if line.strip() not in ("", '""""""')]) <= 15
    assert f"--config=configs/{name}.py" in module.__doc__


@pytest.mark.parametrize("name", NAMES)
def test_a_config_has_the_fields_of_base_and_the_options_of_its_parts(name):
    config, fields = load(name), base.get_config()
    assert set(config) == set(fields)
    for section in ("train", "eval", "sample", "optimizer", "mesh", "guidance"):
        assert set(config[section]) == set(fields[section])
    assert set(config.method) == {"name", *methods.options(config.method.name)}


def with_teacher(
    config: ConfigDict, folder: Path, change: Callable[[ConfigDict], ConfigDict] = shrink, *, weights: bool = True
) -> ConfigDict:
    """The changed config, with fresh runs of its teachers' configs, changed alike, in place of those that it names."""
    if "pairs" in config.coupling:
        points = 16 if config.coupling.pairs.endswith("trajectories") else 1
        config.coupling.pairs = small_runs.pairs(Path(born(config.init_from, folder, change)), 256, points)
    for field in ("teacher.workdir", "teacher.weak", "init_from"):
        if (run := trained.value(config, field)) is not None:
            config.update_from_flattened_dict({field: born(run, folder, change, weights=weights)})
    return change(config)


def born(run: str, folder: Path, change: Callable[[ConfigDict], ConfigDict], *, weights: bool = True) -> str:
    """The workdir of a run of the config that `run` names, made once. Its weights are drawn, for a network that begins
    as 0 teaches nothing, and the rest of its state is 0, which asks for no compilation; or there are none."""
    place = folder / Path(run).name
    if not place.exists():
        config = with_teacher(load(place.name), folder, change, weights=weights)
        place.mkdir(parents=True)
        (place / "config.json").write_text(json.dumps(workdir.plain(config)))
        if not weights:
            return str(place)
        draw = np.random.default_rng(len(place.name))
        abstract = experiment.abstract_state(experiment.build(config))
        whole = jax.tree.map(lambda a: jax.device_put(np.zeros(a.shape, a.dtype)), abstract)
        student = jax.tree.map(
            lambda p: jax.device_put(draw.normal(0, 0.2, p.shape).astype(p.dtype)), whole.params["student"]
        )
        whole = whole.replace(params={**whole.params, "student": student}, ema=ema.start(student, config.train.ema))
        with Checkpoints(place / "checkpoints") as checkpoints:
            checkpoints.save(1, whole, {"position": 1}, {}, wait=True)
    return str(place)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The folder of the runs that configs name, each made once."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory):
    """A TFDS data set of this name with four images of two classes, made by the project's own script."""
    folder = tmp_path_factory.mktemp("cifar10")
    save_images(folder / "images", (32, 32, 32, 32))
    prepare_images.prepare("cifar10", str(folder / "images"), str(folder / "tfds"))
    return folder / "tfds"


@pytest.fixture(scope="module")
def celeba(tmp_path_factory):
    """The TFDS data set celeb_a, of six images of the sides of CelebA's."""
    folder = tmp_path_factory.mktemp("celeba")
    images, partition = small_celeba.save(folder, number=6)
    prepare_images.prepare("celeb_a", str(images), str(folder / "tfds"), str(partition))
    return folder / "tfds"


@pytest.fixture(scope="module")
def imagenet256(tmp_path_factory):
    """Six latents of two classes."""
    folder = tmp_path_factory.mktemp("imagenet256")
    np.save(folder / "latents.npy", np.random.default_rng(0).normal(0, 5, (6, 32, 32, 4)).astype(np.float16))
    np.save(folder / "labels.npy", np.arange(6) % 2)
    return folder


@pytest.fixture(scope="module")
def imagenet64(tmp_path_factory):
    """Four images of two classes, not all of one size."""
    return save_images(tmp_path_factory.mktemp("imagenet64"), (64, 80, 64, 70))


@pytest.fixture(scope="module")
def afhq(imagenet64):
    """The same images: their sub-folders are no classes here."""
    return imagenet64


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """Four images of two classes and one size."""
    return save_images(tmp_path_factory.mktemp("images"), (32, 32, 32, 32))


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    """Six images of two classes."""
    folder = tmp_path_factory.mktemp("mnist")
    pixels = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
    np.savez(folder / "fashion_mnist.npz", train_x=pixels, train_y=np.arange(6) % 2)
    return folder


def save_images(folder: Path, sides: tuple[int, ...]) -> Path:
    """The folder, with an image of each of the sides, in turns of two classes."""
    for i, side in enumerate(sides):
        file = folder / str(i % 2) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (side, side, 3), np.uint8)).save(file)
    return folder


def brought(config: ConfigDict, folder: Path) -> ConfigDict:
    """The config on the data in `folder`."""
    if "path" in config.data:
        config.data.path = str(folder / config.data.path)
    else:
        config.data.dir = str(folder)
    config.mesh.data = 1
    return config


def shrink_images(config: ConfigDict, folder: Path) -> ConfigDict:
    """On the data in `folder`. A U-Net of two resolutions and no depth still has blocks of every kind, down, up and
    with attention, and images of 16x16 suffice it."""
    config = brought(shrink(config), folder)
    config.train.batch_size = 64 if config.method.name == "shortcut" else 4
    if config.network.name.endswith("dit"):
        config.network.depth = 1
    else:
        config.network.update(width=4, depth=0, multipliers=config.network.multipliers[:2], attention=(8,))
        if config.data.get("size"):
            config.data.size = 16
    if config.network.name == "edm2_unet":
        config.network.head_width = 4
    return config


def small(name: str, request: pytest.FixtureRequest) -> ConfigDict:
    """The config of a name, shrunk, with all that it names beside it."""
    runs = request.getfixturevalue("runs")
    if name in IN_MEMORY:
        return with_teacher(load(name), runs)
    folder = request.getfixturevalue(name.rpartition("_")[2])
    return with_teacher(load(name), runs, partial(shrink_images, folder=folder))


def trained_twice(exp: experiment.Experiment) -> state.TrainState:
    """The state after two compiled steps, for a student that starts as its teacher and is warmed up moves with the
    second. The parameters have moved and no row was lost: the loss is a number."""
    fresh = experiment.init(exp)
    before = jax.device_get(fresh.params["student"])
    rows = np.arange(exp.config.train.batch_size) % len(exp.examples)
    batch = experiment.global_batch(exp, exp.examples.batch(rows))
    step = experiment.train_step(exp).lower(fresh, batch).compile(compiler_options=FASTER)
    after, _ = step(fresh, batch)
    after, metrics = step(after, batch)
    assert int(after.step) == 2 and int(after.skipped["student"]) == 0
    assert np.isfinite(float(metrics["loss"]))
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (before, after.params["student"])), strict=True))
    return after


def simplest(part: str) -> set[str]:
    """For each choice of a part of configs one that makes it: without another run and without data of the user's,
    where there is such a one."""

    def effort(name: str) -> tuple[bool, bool, str]:
        config = load(name)
        needs_run = any(trained.value(config, field) is not None for field in ("teacher.workdir", "init_from"))
        return needs_run, name not in IN_MEMORY, name

    return set({load(name)[part].name: name for name in sorted(NAMES, key=effort, reverse=True)}.values())


SIMPLEST = sorted(simplest("method") | simplest("network"))
"""A config of each method, and one of each network."""


@pytest.mark.parametrize("name", SIMPLEST)
def test_a_config_of_each_method_and_network_is_trained_measured_and_drawn(name, request, tmp_path, monkeypatch):
    config = small(name, request)
    exp = experiment.build(config)
    after = trained_twice(exp)
    small_features.use(monkeypatch)
    config.eval.metrics = {"plane": ("sliced_w2",), "image": ("fid",), "latent": ()}[exp.dataset.kind]
    config.eval.update(num_samples=16, batch_size=16, steps=(1,), statistics=str(tmp_path))
    config.sample.update(num_samples=16, steps=(1,))  # the program that was compiled to measure
    workdir.begin(config, tmp_path)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(config.train.steps, after, {"position": 2}, {}, wait=True)
    rows = evaluate.run(config, tmp_path)
    assert [row["metric"] for row in rows] == evaluate.value_names(exp) and None not in [row["value"] for row in rows]
    with np.load(sample.run(config, tmp_path) / "samples.npz") as made:
        assert made["arr_0"].shape == (16, *exp.dataset.shape) and np.isfinite(made["arr_0"]).all()


@pytest.mark.parametrize("name", sorted({*IN_MEMORY} - {*SIMPLEST}))
def test_the_step_of_a_config_has_shapes(name, request):
    """All of it is traced, with the runs that it names, by the shapes of its data."""
    exp = experiment.build(small(name, request))
    abstract = experiment.abstract_state(exp)
    after, metrics = jax.eval_shape(experiment.train_step(exp), abstract, experiment.abstract_batch(exp))
    assert shapes(after) == shapes(abstract)
    assert metrics["loss"].shape == ()


BROUGHT = sorted({*NAMES} - {*IN_MEMORY})


@pytest.mark.parametrize("name", BROUGHT)
def test_a_config_whose_data_the_user_brings_has_shapes(name, request, tmp_path):
    """The whole network, and those of the runs that it names, take the data in their own size."""
    folder = request.getfixturevalue(name.rpartition("_")[2])
    exp = experiment.build(with_teacher(load(name), tmp_path, partial(brought, folder=folder), weights=False))
    assert exp.dataset.num_classes == (2 if labelled(exp) else 0)
    abstract = experiment.abstract_state(exp)
    assert set(abstract.params) == set(exp.networks)
    assert all(shapes(average) == shapes(abstract.params["student"]) for average in abstract.ema.values())


def labelled(exp: experiment.Experiment) -> bool:
    """Whether the examples are to have labels: CelebA has none."""
    return exp.config.data.get("labels", True) and exp.config.data.get("dataset") != "celeb_a"


def shapes(tree: Any) -> list[tuple[int, ...]]:
    return [leaf.shape for leaf in jax.tree.leaves(tree)]


@pytest.mark.long
@pytest.mark.parametrize("name", sorted({*NAMES} - {*SIMPLEST}))
def test_a_config_takes_two_steps(name, request):
    trained_twice(experiment.build(small(name, request)))


VARIANTS = (
    "facm_digits_two_clocks",
    "tvm_digits_guided",
    "lcm_digits_guided",
    "reflow_digits_mixed",
    "reflow_digits_distilled",
    "knowledge_distillation_digits_trajectories",
    "add_digits_latent",
    "ayf_emd_digits_finetuned",
)


@pytest.mark.parametrize("run", VARIANTS)
def test_a_variant_has_shapes(run, runs):
    exp = experiment.build(with_teacher(load(run), runs))
    abstract = experiment.abstract_state(exp)
    after, _ = jax.eval_shape(experiment.train_step(exp), abstract, experiment.abstract_batch(exp))
    assert shapes(after) == shapes(abstract)


@pytest.mark.long
@pytest.mark.parametrize("run", VARIANTS)
def test_a_variant_takes_two_steps(run, runs):
    trained_twice(experiment.build(with_teacher(load(run), runs)))


def test_variants_and_their_errors():
    from configs import lsd_checker

    assert lsd_checker.get_config("long").train.steps > lsd_checker.get_config().train.steps
    with pytest.raises(UsageError, match="unknown variant of this config 'lomg': did you mean 'long'"):
        lsd_checker.get_config("lomg")


def test_every_method_has_a_config_on_the_plane_and_on_digits():
    configs = [load(name) for name in IN_MEMORY]
    for method in methods.names():
        assert {config.data.name for config in configs if config.method.name == method} >= {"checker", "digits"}


@pytest.mark.parametrize(
    ("method", "option", "message"),
    [
        ("psd", {"middle": "unifrom"}, "unknown middle of method psd 'unifrom': did you mean 'uniform'"),
        ("lsd", {"through": "mpa"}, "unknown through of method lsd 'mpa': did you mean 'map'"),
        ("lsd", {"weights": (1.0,)}, r"weights of method lsd is \(1.0,\), and must have 2 items"),
        ("lsd", {"diagonal_fraction": "half"}, "diagonal_fraction of method lsd is 'half', and must be of type float"),
        ("flow_matching", {"law": ("uniform", 3.0)}, r"law of times \('uniform', 3.0\): uniform takes no parameters"),
        ("flow_matching", {"label_dropout": 3.0}, r"method.label_dropout=3.0 must lie in \[0, 1\]"),
    ],
)
def test_an_option_that_cannot_be_is_named(method, option, message):
    config = base.checker("flow_matching")
    config.method = base.part(base.methods, method, **option)
    with pytest.raises(UsageError, match=message):
        experiment.build(config)
