"""Every config: short, complete, and able to take a step at its own shapes, shrunk in width, depth and batch alone."""

import importlib
import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest
import small_runs
from ml_collections import ConfigDict
from PIL import Image

from configs import base
from flowmaps import ema, experiment, methods, trained, workdir
from flowmaps.checkpoints import Checkpoints
from flowmaps.errors import UsageError

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


def with_teacher(config: ConfigDict, folder: Path, small: Callable[[ConfigDict], ConfigDict] = shrink) -> ConfigDict:
    """The shrunk config, with fresh runs of its teachers' configs, shrunk alike, in place of those that it names."""
    if "pairs" in config.coupling:
        points = 16 if config.coupling.pairs.endswith("trajectories") else 1
        config.coupling.pairs = small_runs.pairs(Path(born(config.init_from, folder, small)), 256, points)
    for field in ("teacher.workdir", "teacher.weak", "init_from"):
        if (run := trained.value(config, field)) is not None:
            config.update_from_flattened_dict({field: born(run, folder, small)})
    return small(config)


def born(run: str, folder: Path, small: Callable[[ConfigDict], ConfigDict]) -> str:
    """The workdir of a run of the config that `run` names, made once. Its weights are drawn, for a network that begins
    as 0 teaches nothing, and the rest of its state is 0, which asks for no compilation."""
    place = folder / Path(run).name
    if not place.exists():
        config = with_teacher(load(place.name), folder, small)
        draw = np.random.default_rng(len(place.name))
        abstract = experiment.abstract_state(experiment.build(config))
        state = jax.tree.map(lambda a: jax.device_put(np.zeros(a.shape, a.dtype)), abstract)
        student = jax.tree.map(
            lambda p: jax.device_put(draw.normal(0, 0.2, p.shape).astype(p.dtype)), state.params["student"]
        )
        state = state.replace(params={**state.params, "student": student}, ema=ema.start(student, config.train.ema))
        with Checkpoints(place / "checkpoints") as checkpoints:
            checkpoints.save(1, state, {"position": 1}, {}, wait=True)
        (place / "config.json").write_text(json.dumps(workdir.plain(config)))
    return str(place)


@pytest.mark.parametrize("name", IN_MEMORY)
def test_a_config_takes_a_step(name, tmp_path):
    """The compiled step runs at the config's shapes; the parameters move and no row is lost: loss is a number."""
    exp = experiment.build(with_teacher(load(name), tmp_path))
    state = experiment.init(exp)
    before = jax.tree.map(np.array, state.params["student"])
    batch = experiment.global_batch(exp, exp.examples.batch(np.arange(exp.config.train.batch_size)))
    step = experiment.train_step(exp).lower(state, batch).compile(compiler_options=FASTER)
    for _ in range(2):  # a student that starts as its teacher and is warmed up moves with the second
        state, metrics = step(state, batch)
    moved = jax.tree.map(lambda a, b: float(np.abs(a - b).max()), before, state.params["student"])
    assert int(state.step) == 2 and int(state.skipped["student"]) == 0
    assert np.isfinite(float(metrics["loss"]))
    assert max(jax.tree.leaves(moved)) > 0


@pytest.fixture
def cifar10(tmp_path):
    """A TFDS data set of this name with four images of two classes, made by the project's own script."""
    for i in range(4):
        file = tmp_path / "images" / str(i % 2) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (32, 32, 3), np.uint8)).save(file)
    script = FOLDER.parent / "scripts" / "prepare_images.py"
    options = ["--name=cifar10", f"--images={tmp_path / 'images'}", f"--out={tmp_path / 'tfds'}"]
    subprocess.run([sys.executable, str(script), *options], check=True, capture_output=True)
    return tmp_path / "tfds"


@pytest.fixture
def imagenet256(tmp_path):
    """Six latents of two classes."""
    np.save(tmp_path / "latents.npy", np.random.default_rng(0).normal(0, 5, (6, 32, 32, 4)).astype(np.float16))
    np.save(tmp_path / "labels.npy", np.arange(6) % 2)
    return tmp_path


@pytest.fixture
def imagenet64(tmp_path):
    """Four images of two classes, not all of one size."""
    for i, side in enumerate((64, 80, 64, 70)):
        file = tmp_path / str(i % 2) / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (side, side, 3), np.uint8)).save(file)
    return tmp_path


@pytest.fixture
def afhq(imagenet64):
    """The same images: their sub-folders are no classes here."""
    return imagenet64


@pytest.fixture
def mnist(tmp_path):
    """Six images of two classes."""
    images = np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)
    np.savez(tmp_path / "fashion_mnist.npz", train_x=images, train_y=np.arange(6) % 2)
    return tmp_path


def shrink_images(config: ConfigDict, folder: Path) -> ConfigDict:
    """On the data in `folder`. A U-Net of two resolutions and no depth still has blocks of every kind, down, up and
    with attention, and images of 16x16 suffice it."""
    config = shrink(config)
    if "path" in config.data:
        config.data.path = str(folder / config.data.path)
    else:
        config.data.dir = str(folder)
    config.train.batch_size = 64 if config.method.name == "shortcut" else 4
    if config.network.name.endswith("dit"):
        config.network.depth = 1
    else:
        config.network.update(width=4, depth=0, multipliers=config.network.multipliers[:2], attention=(8,))
        if "size" in config.data:
            config.data.size = 16
    if config.network.name == "edm2_unet":
        config.network.head_width = 4
    return config


FIRST = ("edm_cifar10", "edm_imagenet64", "sit_imagenet256")
BROUGHT = [
    pytest.param(name, marks=() if name in FIRST else pytest.mark.long)
    for name in NAMES
    if name.endswith(tuple(set(OF_USERS) - {"celeba", "images"}))
]
"""One of each of the first data sets, and the rest, which take ten seconds and more, among the long tests."""


@pytest.mark.parametrize("name", BROUGHT)
def test_a_config_whose_data_the_user_brings_takes_a_step(name, request, tmp_path):
    """The real config, shrunk in width, depth, batch and the size of its pixels."""
    folder = request.getfixturevalue(name.rpartition("_")[2])
    exp = experiment.build(with_teacher(load(name), tmp_path / "runs", partial(shrink_images, folder=folder)))
    assert exp.dataset.num_classes == (2 if exp.config.data.get("labels", True) else 0)
    state = experiment.init(exp)
    params = jax.device_get(state.params["student"])
    batch = experiment.global_batch(exp, exp.dataset.train.batch(np.arange(exp.config.train.batch_size) % 4))
    step = experiment.train_step(exp).lower(state, batch).compile(compiler_options=FASTER)
    for _ in range(2):  # a student that starts as its teacher and is warmed up moves with the second
        state, metrics = step(state, batch)
    assert int(state.step) == 2 and int(state.skipped["student"]) == 0 and float(metrics["grad_norm"]) > 0
    assert any(np.any(a != b) for a, b in zip(*map(jax.tree.leaves, (params, state.params["student"])), strict=True))


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
def test_a_variant_takes_a_step(run, tmp_path):
    exp = experiment.build(with_teacher(load(run), tmp_path))
    batch = experiment.global_batch(exp, exp.examples.batch(np.arange(exp.config.train.batch_size)))
    state = experiment.init(exp)
    state, metrics = experiment.train_step(exp).lower(state, batch).compile(compiler_options=FASTER)(state, batch)
    assert int(state.skipped["student"]) == 0 and float(metrics["grad_norm"]) > 0


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
