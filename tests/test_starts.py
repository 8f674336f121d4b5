"""Students that start from another run: from its average, as the model that it was, guided or not."""

import json

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_experiment import PARTS, batches, finished_run, small

from configs import base
from flowmaps import (
    experiment,
    networks,
    workdir,
)
from flowmaps.checkpoints import Checkpoints
from flowmaps.errors import MissingError, UsageError
from flowmaps.guidance import with_guidance


@pytest.mark.parametrize("decays", [(0.9, 0.99), ()])
def test_student_starts_from_the_average_of_another_run(tmp_path, decays):
    """Of a run by another method; from its parameters where it kept no average."""
    donor = finished_run(tmp_path, method="psd", train={"ema": decays})
    config = small(method="shortcut", batch_size=256)
    config.init_from = str(tmp_path)
    exp = experiment.build(config)
    state = experiment.init(exp)
    expected = jax.device_get(donor.ema["0.9"] if decays else donor.params["student"])
    for ours in (state.params["student"], state.target, state.ema["0.999"]):
        chex.assert_trees_all_equal(jax.device_get(ours), expected)
    jax.tree.map(lambda a, b: chex.assert_equal(a.sharding, b.sharding), state, experiment.abstract_state(exp))
    experiment.train_step(exp)(state, next(batches(exp, config)))  # donates every buffer once


def test_init_from_what_is_no_run_or_another_network_is_refused(tmp_path):
    config = small()
    config.init_from = str(tmp_path / "nowhere")
    with pytest.raises(MissingError, match="nowhere"):
        experiment.init(experiment.build(config))
    finished_run(tmp_path, width=16)
    config.init_from = str(tmp_path)
    with pytest.raises(UsageError, match=r"init_from=.* is of another kind: network.width 16 -> 8"):
        experiment.init(experiment.build(config))


def test_a_student_may_start_with_another_dropout(tmp_path):
    """It has no weights."""
    donor = finished_run(tmp_path, network={"dropout": 0.1})
    config = small()
    config.init_from = str(tmp_path)
    params = experiment.init(experiment.build(config)).params["student"]
    chex.assert_trees_all_equal(jax.device_get(params), jax.device_get(donor.ema["0.999"]))


def trained_run(config, path):
    """A run whose average is not what it began with, in its workdir: its experiment and the average."""
    exp = experiment.build(config)
    state = experiment.init(exp)
    draw = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + 0.3 * draw.standard_normal(p.shape, np.float32), state.ema["0.999"])
    with Checkpoints(path / "checkpoints") as checkpoints:
        checkpoints.save(3, state.replace(ema={"0.999": params}), {"position": 3}, {}, wait=True)
    (path / "config.json").write_text(json.dumps(workdir.plain(config)))
    return exp, params


@pytest.mark.parametrize("network", ["mlp", "dit"])
@pytest.mark.parametrize("prediction", ["velocity", "edm"])
def test_a_student_starts_as_the_diffusion_model_that_it_comes_from(tmp_path, network, prediction):
    """What was trained at one time, and knows nothing of a second, starts as v_{s,t} = v_{s,s}, to 1e-5."""
    parts = {"mlp": {"width": 8, "depth": 2}, "dit": {"patch": 2, "width": 8, "depth": 1, "heads": 2}}
    config = base.digits("diffusion")
    config.network = base.part(base.networks, network, **parts[network])
    config.prediction = base.part(base.predictions, prediction)
    config.interpolant = base.part(base.interpolants, "trigonometric")
    exp, params = trained_run(config, tmp_path)
    config.method = base.part(base.methods, "lsd")
    config.init_from = str(tmp_path)
    config.network.update(
        {"remat": "full", "attention": "xla"} if network == "dit" else {}
    )  # makes no other network of it
    exp = experiment.build(config)
    student, donor = (
        jax.jit(networks.bind(exp.networks["student"], jax.device_get(p)))
        for p in (experiment.init(exp).params["student"], params)
    )
    x = jax.random.normal(jax.random.key(0), (6, 8, 8, 1))
    s, t, cond = jnp.linspace(0, 0.9, 6), jnp.linspace(1, 0.2, 6), {"label": jnp.arange(6, dtype=jnp.int32)}
    np.testing.assert_allclose(student(x, s, t, cond), donor(x, s, s, cond), atol=1e-5)
    assert np.abs(donor(x, s, t, cond) - donor(x, s, s, cond)).max() > 1e-2


@pytest.mark.parametrize("network", ["mlp", *(pytest.param(name, marks=pytest.mark.long) for name in ("dit", "unet"))])
def test_a_guided_student_starts_as_the_unguided_model_that_it_comes_from(tmp_path, network):
    """At every scale and interval, of a guided diffusion model's weights, and its new weights learn."""
    config = base.digits("diffusion", label_dropout=0.1)
    config.network = base.part(base.networks, network, **PARTS[network])
    config.mesh.fsdp = 4
    exp, params = trained_run(config, tmp_path)
    donor = networks.bind(exp.networks["student"], jax.device_get(params))

    config.method = base.part(base.methods, "latent_consistency", guidance=(1.0, 3.0), chain=10, skip=2)
    config.teacher.workdir = config.init_from = str(tmp_path)
    exp = experiment.build(config)
    state = experiment.init(exp)
    jax.tree.map(lambda a, b: chex.assert_equal(a.sharding, b.sharding), state, experiment.abstract_state(exp))
    started = jax.device_get(state.params["student"])
    student = networks.bind(exp.networks["student"], started)
    x = jax.random.normal(jax.random.key(0), (6, 8, 8, 1))
    s, t, cond = jnp.linspace(0, 0.9, 6), jnp.linspace(1, 0.2, 6), {"label": jnp.arange(6, dtype=jnp.int32)}
    expected = donor(x, s, s, cond)
    for interval in ((0.0, 1.0), (0.2, 0.7)):
        asked = with_guidance(cond, jnp.linspace(1, 3, 6), interval)
        np.testing.assert_allclose(student(x, s, t, asked), expected, atol=3e-5 * np.abs(expected).max())

    stream, step = batches(exp, config), experiment.train_step(exp)
    for _ in range(3):
        state, _ = step(state, next(stream))
    after = jax.device_get(state.params["student"])
    added = {"mlp": after["Dense_0"]["kernel"][-3:]} if network == "mlp" else after["TimeAndLabel_0"]["Dense_2"]
    assert all(np.abs(p).max() > 0 for p in jax.tree.leaves(added))


def test_a_guided_model_is_no_start_of_an_unguided_one(tmp_path):
    finished_run(tmp_path, method="tvm", dataset="digits", method_options=dict(guidance=(1.0, 2.0), label_dropout=0.1))
    config = small("tvm", "digits")
    config.init_from = str(tmp_path)
    with pytest.raises(UsageError, match="is of another kind: its network reads guidance, this one does not"):
        experiment.init(experiment.build(config))
