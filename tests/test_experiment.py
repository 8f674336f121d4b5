import json
import math
from contextlib import nullcontext

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_runs
from jax.sharding import PartitionSpec as P

from configs import base
from flowmaps import (
    couplings,
    data,
    experiment,
    methods,
    networks,
    optimizers,
    rows,
    trained,
    workdir,
)
from flowmaps import train_step as step_
from flowmaps.checkpoints import Checkpoints
from flowmaps.errors import UsageError
from flowmaps.guidance import with_guidance
from flowmaps.types import NULL_LABEL

PARTS = {
    "mlp": {"width": 64, "depth": 2},
    "dit": {"patch": 2, "width": 64, "depth": 1, "heads": 2},
    "unet": {"width": 8, "multipliers": (1, 2), "depth": 1, "attention": (4,)},
}
EACH = ("mlp", "dit", pytest.param("unet", marks=pytest.mark.long))
"""The last takes a minute to compile."""


def small(method="lsd", dataset="checker", *, batch_size=64, width=8, **sections):
    """A small config; `sections` are values by section: train={"ema": ()}."""
    config = base.get_config()
    config.method = base.part(methods, method)
    config.data = base.part(data, dataset)
    config.network = base.part(networks, "mlp", width=width, depth=2)
    config.train.batch_size = batch_size
    for section, values in sections.items():
        config[section].update(values)
    return config


def batches(exp, config):
    loader = data.loader(exp.examples, batch_size=config.train.batch_size, seed=config.seed)
    return (experiment.global_batch(exp, batch) for batch in loader)


NEEDS_A_TEACHER = (
    "adversarial_distillation",
    "dmd",
    "dmd2",
    "flow_map_distillation",
    "latent_consistency",
    "score_distillation",
    "truncated_consistency",
)
STARTS_FROM_A_MODEL = ("progressive_distillation",)
ON_TRAJECTORIES = ("reflow", "knowledge_distillation", "consistency_mid_training", "dmd")


@pytest.mark.parametrize(
    ("method", "dataset"), [*((name, "checker") for name in methods.names()), ("mean_flow", "digits")]
)
def test_every_method_takes_steps_traced_once(method, dataset, tmp_path):
    config = small(method, dataset, batch_size=256, width=4, train={"steps": 20_000})  # longer than any warm-up
    if method in (*NEEDS_A_TEACHER, *STARTS_FROM_A_MODEL, *ON_TRAJECTORIES):
        known = "consistency" if method == "truncated_consistency" else "flow_matching"
        finished_run(tmp_path, method=known, width=4)
    if method in NEEDS_A_TEACHER:
        config.teacher.workdir = str(tmp_path)
    if method in STARTS_FROM_A_MODEL:
        config.init_from = str(tmp_path)
        config.train.ema = ()
    if method in ON_TRAJECTORIES:
        points = config.method.get("points", 1)
        config.coupling = base.part(couplings, "stored", pairs=small_runs.pairs(tmp_path, 256, points))
    config.method.update(
        {name: value for name, value in {"every": 1, "sees": "samples"}.items() if name in config.method}
    )
    exp, traces = experiment.build(config), []

    def counted(*arguments):
        traces.append(arguments)
        return exp.method.losses["student"](*arguments)

    losses = {**exp.method.losses, "student": counted}
    step = experiment.train_step(exp._replace(method=exp.method._replace(losses=losses)))
    state, stream, looked_ahead = experiment.init(exp), batches(exp, config), len(traces)
    before = jax.device_get(state.params)
    for _ in range(2):
        state, metrics = step(state, next(stream))
    assert len(traces) == looked_ahead
    assert (int(state.step), int(state.skipped["student"])) == (2, 0)
    assert {"loss", "grad_norm", "learning_rate", "skipped"} < set(metrics)
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), before["student"], jax.device_get(state.params["student"]))
    assert moved["Dense_0"]["kernel"] and moved["Dense_1"]["kernel"]


def test_what_generates_needs_no_other_player():
    config = small(method="lsd")
    config.method.learned_weight = True
    trained, generating = (experiment.build(config, training=training) for training in (True, False))
    assert set(trained.networks) == {"student", "log_variance"}
    assert set(generating.networks) == set(generating.optimizers) == {"student"}


def test_the_look_ahead_and_the_first_step_share_one_trace():
    config = small()
    exp = experiment.build(config)
    loss, traces = exp.method.losses["student"], []

    def counted(*arguments):
        traces.append(arguments)
        return loss(*arguments)

    exp = exp._replace(method=exp.method._replace(losses={"student": counted}))
    step, state, stream = experiment.train_step(exp), experiment.init(exp), batches(exp, config)
    for _ in range(3):
        state, _ = step(state, next(stream))
    assert len(traces) == 1


@pytest.mark.parametrize("method", ["lsd", "shortcut"])
def test_abstract_state_is_the_state_and_its_shardings(method):
    """With fsdp=4 one kernel of 64 x 64 is cut: in the parameters, two moments, two averages and the target."""
    exp = experiment.build(small(method, width=64, train={"ema": (0.9, 0.999)}, mesh={"fsdp": 4}))
    state, abstract = experiment.init(exp), experiment.abstract_state(exp)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, abstract)
    jax.tree.map(lambda a, b: chex.assert_equal(a.sharding, b.sharding), state, abstract)
    cut = [a for a in jax.tree.leaves(state) if a.sharding.spec != P()]
    assert len(cut) == (6 if method == "shortcut" else 5)
    assert set(state.ema) == {"0.9", "0.999"}


def test_initial_state_depends_on_the_seed_and_not_on_the_devices():
    first = experiment.init(experiment.build(small()))
    same = experiment.init(experiment.build(small(mesh={"data": 1, "fsdp": 1})))
    chex.assert_trees_all_equal(jax.device_get(first), jax.device_get(same))
    config = small()
    config.seed = 1
    other = experiment.init(experiment.build(config))
    kernels = [s.params["student"]["Dense_0"]["kernel"] for s in (first, other)]
    assert not np.any(np.isclose(*kernels))


def test_labels_reach_the_batch_where_there_are_classes():
    for dataset, names in (("checker", {"x1"}), ("digits", {"x1", "label"})):
        config = small(dataset=dataset)
        exp = experiment.build(config)
        batch, abstract = next(batches(exp, config)), experiment.abstract_batch(exp)
        assert set(batch) == names
        chex.assert_trees_all_equal_shapes_and_dtypes(batch, abstract)
        jax.tree.map(lambda a, b: chex.assert_equal(a.sharding, b.sharding), batch, abstract)


def test_a_batch_that_a_method_cannot_deal_fails_before_the_first_step():
    exp = experiment.build(small(batch_size=6, mesh={"data": 1}))
    with pytest.raises(UsageError, match="6 rows"):
        experiment.train_step(exp)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"batch_size": 100}, r"train.batch_size=100 is not a multiple of 8"),
        ({"train": {"accumulate": 3}}, r"not a multiple of 24 \(8 devices x 3"),
        ({"mesh": {"fsdp": 3}}, "mesh.fsdp=3 does not divide the 8 devices"),
        ({"guidance": {"scale": 2.0}}, "guidance.scale=2.0 needs labels"),
        ({"optimizer": {"name": "adman"}}, "unknown optimizer 'adman': did you mean 'ada"),
        ({"interpolant": {"name": "linnear"}}, "unknown interpolant 'linnear': did you mean 'linear'"),
        ({"coupling": {"name": "independant"}}, "unknown coupling 'independant': did you mean 'independent'"),
        ({"network": {"name": "mlpp"}}, "unknown network 'mlpp': did you mean 'mlp'"),
        ({"data": {"name": "chequer"}}, "unknown data set 'chequer': did you mean 'checker'"),
        ({"method": {"name": "lsdd"}}, "unknown method 'lsdd': did you mean 'lsd'"),
        ({"method": {"diagonal_fractoin": 0.5}}, "'diagonal_fractoin': did you mean 'diagonal_fraction'"),
        ({"network": {"widht": 3}}, "'widht': did you mean 'width'"),
        ({"prediction": {"name": "noise"}}, "'noise' says nothing of the data at time 0.0, where this path has none"),
    ],
)
def test_wrong_values_are_named(sections, words):
    config = small(batch_size=sections.pop("batch_size", 64))
    for section, values in sections.items():
        for name, value in values.items():
            config[section][name] = value
    with pytest.raises(UsageError, match=words):
        experiment.build(config)


@pytest.mark.parametrize("objective", ["implicit", "sliced", "denoising"])
def test_the_density_s_own_score_needs_a_gaussian_source(objective):
    """Denoising alone learns the means of both ends, and so the velocity of any coupling."""
    config = small(method="score_matching")
    config.method.objective = objective
    config.coupling = base.part(base.couplings, "optimal_transport", group=8)
    refused = pytest.raises(UsageError, match=r"set coupling\.name to 'independent'")
    with nullcontext() if objective == "denoising" else refused:
        experiment.build(config)


def test_a_role_without_a_network_is_named():
    config = small()
    config.method.learned_weight = True
    del config.players.log_variance
    with pytest.raises(UsageError, match=r"role 'log_variance'.*set config.players.log_variance.network"):
        experiment.build(config)


def test_a_role_that_the_student_owns_has_its_network_and_learns():
    config = small(method="lsd")
    config.method.learned_weight = True
    config.players.log_variance = {"network": base.part(networks, "log_variance", width=8)}
    exp = experiment.build(config)
    state = experiment.init(exp)
    head = state.params["log_variance"]
    assert not any(np.any(p) for p in jax.tree.leaves(head))  # it starts at zero
    state, _ = experiment.train_step(exp)(state, next(batches(exp, config)))
    assert all(np.any(p) for p in jax.tree.leaves(state.params["log_variance"]))
    assert set(state.opt_state) == {"student"}


def test_a_player_has_its_own_optimizer_for_its_own_number_of_updates():
    """The critic, updated at every fourth of 100 steps, ends its cosine after 25 updates."""
    config = small(train={"steps": 100})
    method = experiment.build(config).method._replace(periods={"critic": 4})
    config.players.critic = {"optimizer": {"name": "sgd", "learning_rate": 0.5}}
    critic = experiment.make_optimizer(config, method, "critic")
    student = experiment.make_optimizer(config, method, "student")
    np.testing.assert_allclose([critic.learning_rate(jnp.array(n)) for n in (0, 25)], [0.5, 0], atol=1e-7)
    np.testing.assert_allclose([student.learning_rate(jnp.array(n)) for n in (0, 100)], [1e-3, 0], atol=1e-9)
    gradient = {"w": jnp.array([0.25])}
    np.testing.assert_allclose(critic.update(gradient, critic.init(gradient), gradient)[0]["w"], -0.5 * 0.25)


def arguments(exp, n=8):
    """x, s, t and labels of n rows."""
    x = jax.random.normal(jax.random.key(0), (n, *exp.dataset.shape))
    return x, jnp.linspace(0, 0.5, n), jnp.linspace(0.5, 1, n), {"label": jnp.arange(n) % 3}


def test_student_is_the_network_and_guided_where_the_config_says():
    """v_null + w (v_label - v_null) on the interval, v_label outside."""
    guidance = {"scale": 3.0, "interval": (0.2, 1.0)}
    config = small(dataset="digits", guidance=guidance)
    config.method.label_dropout = 0.1
    exp = experiment.build(config)
    params = experiment.init(exp).params["student"]
    x, s, t, cond = arguments(exp)
    plain = networks.bind(exp.networks["student"], params)
    labelled = np.asarray(plain(x, s, t, cond))
    free = np.asarray(plain(x, s, t, {"label": jnp.full(8, NULL_LABEL)}))
    scale = np.where(s >= 0.2, 3.0, 1.0).reshape(-1, 1, 1, 1)
    guided = experiment.student(exp, params)
    np.testing.assert_allclose(guided(x, s, t, cond), free + scale * (labelled - free), rtol=1e-4, atol=1e-5)
    config.guidance.scale = 1.0
    np.testing.assert_array_equal(experiment.student(experiment.build(config), params)(x, s, t, cond), labelled)


def test_guidance_needs_a_network_that_was_trained_without_labels_too():
    config = small(dataset="digits", guidance={"scale": 3.0})
    with pytest.raises(UsageError, match=r"train it with method\.label_dropout above 0"):
        experiment.build(config)


def finished_run(path, method_options=(), **changes):
    """A workdir with one checkpoint whose averages differ from its parameters."""
    config = small(**changes)
    config.method.update(dict(method_options))
    exp = experiment.build(config)
    state = experiment.init(exp)
    state = state.replace(ema={name: jax.tree.map(lambda p: p + 1, p) for name, p in state.ema.items()})
    with Checkpoints(path / "checkpoints") as checkpoints:
        checkpoints.save(3, state, {"position": 3}, {}, wait=True)
    (path / "config.json").write_text(json.dumps(config.to_dict()))
    return state


def test_a_run_is_read_with_the_values_that_it_was_trained_with(tmp_path):
    """Tuples and infinities too, for which JSON has other words."""
    config = small(method="shortcut")
    assert config.method.clip == math.inf and isinstance(config.eval.steps, tuple)
    workdir.begin(config, tmp_path)
    read = trained.read(tmp_path, "teacher.workdir")
    assert read.to_dict() == config.to_dict()
    assert experiment.build(read).method.sampler


@pytest.mark.parametrize("network", EACH)
def test_the_adaptive_weight_makes_the_last_layers_gradients_equally_long(network):
    """ratio |grad of denoising| = |grad of the map| in the last kernel, and nothing else is changed by it."""
    config = base.on_levels(base.digits("ctm", intervals=4), "variance_exploding", "edm")
    config.network = base.part(base.networks, network, **PARTS[network])

    def gradient(adaptive, weights, params):
        config.method.update(adaptive=adaptive, weights=weights)
        exp = experiment.build(config)

        def mean(student):
            bound = step_.bind_roles(experiment.binds(exp), {"student": student}, {}, params, experiment.views(exp))
            out = exp.method.losses["student"](bound, batch, keys, jnp.zeros((), jnp.int32))
            return out.per_example.mean(), out.metrics

        return jax.device_get(jax.jit(jax.grad(mean, has_aux=True))(params))

    exp = experiment.build(config)
    draw = np.random.default_rng(0)
    params = jax.device_get(experiment.init(exp).params["student"])
    params = jax.tree.map(lambda p: p + 0.1 * draw.standard_normal(p.shape, np.float32), params)
    keys = rows.keys(jax.random.key(0), 0, 16)
    batch = {**jax.tree.map(jnp.asarray, exp.dataset.train.batch(np.arange(16))), "x0": rows.normal(keys, (8, 8, 1))}
    (map_, _), (flow, _) = (gradient(False, weights, params) for weights in ((1.0, 0.0), (0.0, 1.0)))
    both, metrics = gradient(True, (1.0, 1.0), params)
    layer, name = networks.load(network).last_kernel(params)
    lengths = [np.linalg.norm(found[layer][name]) for found in (map_, flow)]
    np.testing.assert_allclose(metrics["ratio"] * lengths[1], lengths[0], rtol=1e-3)
    expected = jax.tree.map(lambda a, b: a + metrics["ratio"] * b, map_, flow)
    for ours, theirs in zip(jax.tree.leaves(both), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-3 * np.linalg.norm(theirs) + 1e-5
    assert params[layer][name].size == max(p.size for p in jax.tree.leaves(params[layer]))


def test_an_adaptive_weight_needs_a_last_layer(monkeypatch):
    monkeypatch.delattr(networks.load("mlp"), "last_kernel")
    config = small("ctm")
    config.method.adaptive = True
    with pytest.raises(UsageError, match="an adaptive weight is of gradients in the network's last layer"):
        experiment.train_step(experiment.build(config))


def test_every_optimizer_in_a_config_takes_the_configs_options():
    for name in optimizers.names():
        experiment.build(small(optimizer={"name": name}))


def guided(method="tvm", scales=(2.0, 4.0), scale=3.0, interval=(0.0, 1.0)):
    config = small(method, "digits", guidance={"scale": scale, "interval": interval})
    config.method.update(guidance=scales, label_dropout=0.1)
    return config


def test_a_network_that_reads_guidance_is_asked_for_it_in_one_pass():
    """As an input of its own, and not by a second pass without the label."""
    exp = experiment.build(guided())
    params = experiment.init(exp).params["student"]
    velocity, network = experiment.student(exp, params), networks.bind(exp.networks["student"], params)
    x, s, cond = jnp.ones((4, 8, 8, 1)), jnp.full(4, 0.5), {"label": jnp.arange(4, dtype=jnp.int32)}
    asked = with_guidance(cond, jnp.full(4, 3.0))
    np.testing.assert_array_equal(velocity(x, s, s, cond), network(x, s, s, asked))
    assert np.abs(velocity(x, s, s, cond) - network(x, s, s, cond)).max() > 1e-4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": 1.0}, r"guidance.scale=1.0 is not among what method.guidance=\(2.0, 4.0\) trains"),
        ({"scale": 0.0}, "guidance.scale=0.0 is not among"),
        ({"interval": (0.2, 0.7)}, r"guidance.interval=\(0.2, 0.7\): tvm trains the whole of \(0, 1\) alone"),
    ],
)
def test_guidance_that_a_network_has_not_learned_is_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        experiment.build(guided(**changes))
    experiment.build(guided("improved_mean_flow", interval=(0.2, 0.7)))


def test_a_network_that_knows_one_end_reads_no_other_maps():
    config = small("lsd")
    config.prediction = base.part(base.predictions, "two_clocks")
    with pytest.raises(UsageError, match="prediction 'two_clocks' asks for the map to the path's end alone"):
        experiment.build(config)
