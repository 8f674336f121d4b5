"""Frozen networks: their weights from a file, what a training step does to them, and networks of a user's own."""

import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import base
from flowmaps import data, experiment, networks, rows
from flowmaps import train_step as step_
from flowmaps.errors import MissingError, UsageError
from flowmaps.metrics import features


def digits(**fields):
    config = base.digits("consistency", intervals=(10, 10), schedule="doubling", distance="perceptual")
    config = base.with_classifier(base.on_levels(config, "variance_exploding", "consistency"))
    config.network.update(width=8, depth=2)
    config.train.batch_size = 16
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in fields.items()})
    return config


def one_step(config):
    """The states before and after a step, and its metrics."""
    exp = experiment.build(config)
    step, state = experiment.train_step(exp), experiment.init(exp)
    before = jax.device_get(state)
    batch = exp.examples.batch(np.arange(config.train.batch_size))
    state, metrics = step(state, experiment.global_batch(exp, batch))
    return before, jax.device_get(state), metrics


def test_the_classifier_is_that_of_the_metrics():
    """With the packaged weights its hidden layer is metrics.features', to 1e-5; the maps go from shallow to deep."""
    exp = experiment.build(digits())
    net = networks.bind(exp.networks["features"], experiment.init(exp).params["features"])
    x = data.load("digits").test.batch(np.arange(32))["x1"]
    maps = jax.jit(net.heads)(jnp.asarray(x))
    assert [m.shape for m in maps] == [(32, 8, 8, 32), (32, 4, 4, 64), (32, 4, 4, 64), (32, 64)]
    np.testing.assert_allclose(maps[-1], features.hidden(features.load_weights(), x), rtol=1e-5, atol=1e-5)


def test_a_step_trains_the_student_and_leaves_the_features():
    """They have no optimizer, no average, and to the bit the weights of the file."""
    before, after, metrics = one_step(digits())
    chex.assert_trees_all_equal(before.params["features"], after.params["features"])
    np.testing.assert_array_equal(
        after.params["features"]["conv1"]["kernel"], features.load_weights()["conv1/kernel"].astype(np.float32)
    )
    assert set(after.opt_state) == {"student"}
    chex.assert_trees_all_equal_structs(after.ema["0.999"], after.params["student"])
    moved = jax.tree.map(lambda a, b: np.any(a != b), before.params["student"], after.params["student"])
    assert all(jax.tree.leaves(moved))
    assert metrics["grad_norm"] > 0 and int(after.skipped["student"]) == 0


def test_the_gradient_of_the_features_weights_is_zero_to_the_bit():
    """Though the loss depends on them: they are bound stopped."""
    exp = experiment.build(digits())
    params = experiment.init(exp).params
    params = {**params, "student": jax.tree.map(lambda p: p + 0.1, params["student"])}
    keys = rows.keys(jax.random.key(0), 0, 16)
    batch = {**jax.tree.map(jnp.asarray, exp.dataset.train.batch(np.arange(16))), "x0": rows.normal(keys, (8, 8, 1))}

    def loss(params, stopped):
        mine = {"student": params["student"]} if stopped else params
        rest = {role: p for role, p in params.items() if role not in mine}
        roles = step_.bind_roles(experiment.binds(exp), mine, rest)
        return exp.method.losses["student"](roles, batch, keys, jnp.zeros((), jnp.int32)).per_example.mean()

    for stopped in (True, False):
        gradient = jax.jit(jax.grad(loss), static_argnums=1)(params, stopped)
        largest = {role: max(np.abs(g).max() for g in jax.tree.leaves(gradient[role])) for role in gradient}
        assert largest["student"] > 0
        assert (largest["features"] == 0) == stopped


def test_weights_are_cut_over_devices_as_the_state_is():
    exp = experiment.build(digits(mesh__fsdp=4))
    state, abstract = experiment.init(exp), experiment.abstract_state(exp)
    jax.tree.map(lambda a, b: chex.assert_equal(a.sharding, b.sharding), state, abstract)


def test_weights_that_do_not_fit_are_named(tmp_path):
    stored = dict(features.load_weights())
    path = tmp_path / "weights.npz"

    def refused(error, words, source=str(path)):
        with pytest.raises(error, match=words):
            experiment.init(experiment.build(digits(players__features__weights=source)))

    refused(MissingError, r"players\.features\.weights='.*weights\.npz' is not there: give an \.npz with an array")
    refused(UsageError, r"players\.features\.weights is not set: give an \.npz", source="")
    path.write_text("nothing of the kind")
    refused(UsageError, r"weights\.npz' is no \.npz of arrays")
    np.savez(path, **{**stored, "conv2/kernel": np.zeros((3, 3, 32, 8))})
    refused(UsageError, r"is of another network: conv2/kernel \(3, 3, 32, 8\) -> \(3, 3, 32, 64\)")
    np.savez(path, **{name: a for name, a in stored.items() if name != "hidden/bias"})
    refused(UsageError, r"has no 'hidden/bias', which the network has")
    np.savez(path, **stored)
    experiment.init(experiment.build(digits(players__features__weights=str(path))))


def test_features_are_asked_for_where_there_are_none():
    config = digits()
    config.players.features.network.name = None
    with pytest.raises(UsageError, match=r"'features', and the config gives none: set config\.players\.features\.net"):
        experiment.build(config)


def test_data_that_are_no_images_are_refused():
    config = base.checker("consistency", distance="perceptual")
    with pytest.raises(
        UsageError, match=r"compares images by their features, and an example of data 'checker' has the"
    ):
        experiment.build(config)


def test_a_student_needs_no_features_afterwards(tmp_path):
    """Nor the file of their network, nor that of their weights."""
    config = digits(players__features__network__name=str(tmp_path / "gone.py"))
    assert set(experiment.build(config, training=False).networks) == {"student"}
    with pytest.raises(MissingError, match=r"network '.*gone\.py' is not there"):
        experiment.build(config)


def test_the_features_that_the_readme_writes_are_a_network(tmp_path):
    readme = (Path(base.__file__).parents[1] / "README.md").read_text()
    path = tmp_path / "features.py"
    path.write_text(readme.split("## Bring features")[1].split("```python\n")[1].split("```")[0])
    module = networks.make(str(path), shape=(8, 8, 1), num_classes=10)
    maps = networks.bind(module, networks.init(module, jax.random.key(0))).heads(jnp.ones((2, 8, 8, 1)))
    assert [m.shape for m in maps] == [(2, 8, 8, 64), (2, 4, 4, 128)]


OWN = '''
from __future__ import annotations

import jax.numpy as jnp
from flax import linen as nn


class Own(nn.Module):
    """{docstring}"""

    shape: tuple[int, ...]
    num_classes: int
    width: int = 5

    @nn.compact
    def __call__(self, x, *others, dropout=None):
        {body}

    def inputs(self):
        {inputs}


make = Own
'''


def own_network(path: Path, *, body: str, inputs: str) -> str:
    path.write_text(OWN.format(docstring="A user's own.", body=body, inputs=inputs))
    return str(path)


def test_a_network_is_named_by_the_path_of_its_file(tmp_path):
    """One map alone serves too; the file runs once, and its options are those of any network."""
    body = 'return jnp.abs(nn.Conv(self.width, (3, 3), name="only")(x))'
    name = own_network(tmp_path / "own.py", body=body, inputs="return (jnp.zeros((2, *self.shape)),)")
    weights = {"only/kernel": np.random.default_rng(0).normal(size=(3, 3, 1, 5)), "only/bias": np.zeros(5)}
    np.savez(tmp_path / "own.npz", **weights)
    assert networks.options(name) == {"width": 5}
    assert networks.load(name) is networks.load(name)
    config = digits(players__features__network__name=name, players__features__weights=str(tmp_path / "own.npz"))
    _, after, metrics = one_step(config)
    np.testing.assert_array_equal(after.params["features"]["only"]["kernel"], np.float32(weights["only/kernel"]))
    assert metrics["grad_norm"] > 0 and int(after.skipped["student"]) == 0
    with pytest.raises(UsageError, match=r"unknown option of network .*own\.py 'widht': did you mean 'width'"):
        networks.make(name, shape=(8, 8, 1), num_classes=0, widht=3)


def test_a_student_may_be_a_users_own_network(tmp_path):
    body = "return nn.Conv(self.shape[-1], (3, 3))(x)"
    inputs = "return jnp.zeros((2, *self.shape)), jnp.zeros(2), jnp.ones(2), {}"
    config = digits()
    config.network = base.part(networks, own_network(tmp_path / "student.py", body=body, inputs=inputs))
    before, after, _ = one_step(config)
    assert np.any(before.params["student"]["Conv_0"]["kernel"] != after.params["student"]["Conv_0"]["kernel"])


def test_a_users_own_network_says_what_its_file_lacks(tmp_path):
    name = own_network(tmp_path / "own.py", body="return x", inputs="return (jnp.zeros((2, *self.shape)),)")
    with pytest.raises(UsageError, match=r"has no without_end_time, by which a run of another kind is started from"):
        networks.change(name, "without_end_time")


@pytest.mark.parametrize("text", ["", "def make(shape): ..."])
def test_a_file_that_makes_no_network_is_refused(tmp_path, text):
    path = tmp_path / "wrong.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"network '.*wrong\.py' needs a make\(shape=\.\.\., num_classes=\.\.\.\)"):
        networks.load(str(path))


def test_a_file_that_fails_is_not_kept(tmp_path):
    path = tmp_path / "broken.py"
    path.write_text("1 / 0")
    with pytest.raises(ZeroDivisionError):
        networks.load(str(path))
    assert str(path.resolve()) not in sys.modules
