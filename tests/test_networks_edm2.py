"""EDM2's U-Net: its sizes, its magnitudes, its weights on spheres through training."""

import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import BATCH, bound, build, count, inputs, perturbed

from configs import base, lsd_cifar10
from flowmaps import experiment, networks
from flowmaps.errors import UsageError
from flowmaps.networks import _magnitude, edm2_unet


@pytest.mark.parametrize(("size", "millions"), [("xs", 124.7), ("s", 280.2), ("m", 497.8), ("xl", 1119.3)])
def test_it_has_the_papers_parameters(size, millions):
    """But for the end time and its gain, a row for no label, and the 128 of the log-variance, which is another role."""
    module = networks.make("edm2_unet", shape=(64, 64, 4), num_classes=1000, **base.edm2(size))
    embedded = 4 * module.width
    paper = count(module) - (module.width * embedded + 1) - embedded + 128
    assert round(paper / 1e6, 1) == millions


def test_it_is_the_network_of_the_published_flow_map():
    """54,673,314 parameters for LSD on CIFAR-10 (arXiv:2505.18825, released code), whose two times are two layers, with
    the log-variance's 128 and without the gain of one of them."""
    options = {name: value for name, value in lsd_cifar10.get_config().network.items() if name != "name"}
    module = networks.make("edm2_unet", shape=(32, 32, 3), num_classes=0, **options)
    assert count(module) == 54_673_314 - 128 + 1


@pytest.mark.float64
def test_scale_is_a_change_of_units():
    """scale c: f_c(c x) = c f_1(x)."""
    one, scaled = (build("edm2_unet", scale=c, dropout=0.0) for c in (1.0, 3.0))
    params, (x, s, t, cond) = perturbed(one), inputs(one)
    np.testing.assert_allclose(
        bound(scaled, params)(3 * x, s, t, cond), 3 * bound(one, params)(x, s, t, cond), rtol=1e-9
    )


@pytest.mark.float64
@pytest.mark.parametrize("share", [0.0, 0.3, 0.5])
def test_sums_and_joins_keep_magnitudes(share):
    """Exactly for orthogonal inputs; each input of a join counts the same, whatever its number of channels."""
    a, b = np.linalg.qr(np.random.default_rng(0).normal(size=(200, 2)))[0].T * 200**0.5
    mean_square = np.mean(np.square(_magnitude.mixed(jnp.asarray(a), jnp.asarray(b), share)))
    np.testing.assert_allclose(mean_square, 1, rtol=1e-12)
    joined = np.asarray(_magnitude.joined(jnp.ones((1, 2, 2, 6)), -jnp.ones((1, 2, 2, 2))))
    np.testing.assert_allclose(np.square(joined).mean(), 1, rtol=1e-12)
    np.testing.assert_allclose(np.square(joined[..., :6]).sum(), np.square(joined[..., 6:]).sum(), rtol=1e-12)


def test_silu_of_normal_numbers_keeps_their_magnitude():
    points, weights = np.polynomial.hermite_e.hermegauss(80)
    mean_square = np.sum(weights * np.square(_magnitude.silu(jnp.asarray(points)))) / weights.sum()
    np.testing.assert_allclose(mean_square, 1, rtol=2e-3)


def test_magnitudes_are_kept_through_depth_at_the_start():
    """Each of 14 blocks one after the other, of which those on the way up have no norm, gives numbers of mean square 1.
    The middle's attention, a mean over pixels, takes a part of it, which two blocks later the joins have given back."""
    wide = {"width": 64, "multipliers": (1, 2), "depth": 2, "head_width": 16, "shape": (16, 16, 4), "attention": ()}
    module = build("edm2_unet", **wide, dropout=0.0)
    arguments = inputs(module)

    def of_a_block(layer, method):
        return isinstance(layer, edm2_unet.Block) and method == "__call__"

    def magnitudes(key):
        params = networks.init(module, key)
        options = {"mutable": ["intermediates"], "capture_intermediates": of_a_block}
        _, shown = module.apply({"params": params}, *arguments, **options)
        return jax.tree.map(lambda h: jnp.sqrt(jnp.mean(jnp.square(h))), shown["intermediates"])

    found = jax.device_get(jax.jit(magnitudes)(jax.random.key(1)))
    found = np.array([found[f"Block_{i}"]["__call__"][0] for i in range(2 + 3 + 2 + 3 + 4)])
    np.testing.assert_allclose(np.delete(found, [5, 6, 7]), 1, atol=0.08)
    assert np.all((found[5:8] > 0.8) & (found[5:8] < 1))


@pytest.mark.parametrize("num_classes", [0, 3])
def test_the_condition_has_magnitude_one_at_the_start(num_classes):
    module = edm2_unet.Condition(64, 16_384, num_classes, guided=True)
    _, s, t, cond = inputs(build("edm2_unet"))
    out = module.apply(module.init(jax.random.key(0), s, t, cond), s, t, cond)
    np.testing.assert_allclose(np.square(out).mean(axis=1), 1, atol=0.05)


@pytest.mark.float64
def test_attention_sees_directions_alone_and_keeps_what_all_pixels_share():
    """Of longer pixels it is the same; of equal ones, whatever they look at, its magnitude is theirs, 1."""
    module = _magnitude.CosineAttention(4)
    x = jax.random.normal(jax.random.key(0), (2, 3, 3, 256))
    variables = module.init(jax.random.key(1), x)
    np.testing.assert_allclose(module.apply(variables, 5 * x), module.apply(variables, x), rtol=1e-5, atol=1e-7)
    equal = module.apply(variables, jnp.broadcast_to(x[:, :1, :1], x.shape))
    np.testing.assert_allclose(equal, jnp.broadcast_to(equal[:, :1, :1], x.shape), rtol=1e-10)
    np.testing.assert_allclose(jnp.square(equal).mean(), 1, atol=0.15)


@pytest.mark.float64
def test_the_length_of_weights_does_not_count():
    """So a gradient is orthogonal to its weights, and bringing them back to their spheres changes no output."""
    module = build("edm2_unet", dropout=0.0)
    params, arguments = perturbed(module), inputs(module)
    value = jax.jit(lambda params: jnp.mean(networks.bind(module, params)(*arguments) ** 2))
    np.testing.assert_allclose(value(module.project(params)), value(params), rtol=1e-6)

    def check(path, p, g):
        if path[-1].key == "kernel":
            axes = tuple(range(p.ndim - 1))
            bound = 1e-5 * np.linalg.norm(p) * np.linalg.norm(g)
            assert np.abs(np.sum(p * g, axis=axes)).max() <= bound and np.abs(g).max() > 0, path

    jax.tree_util.tree_map_with_path(check, params, jax.jit(jax.grad(value))(params))


def test_it_starts_at_zero_on_its_spheres_and_projections_repeat_nothing():
    module = build("edm2_unet")
    params = jax.jit(partial(networks.init, module))(jax.random.key(0))
    np.testing.assert_array_equal(bound(module, params)(*inputs(module)), 0)
    check_spheres(params)
    once = module.project(perturbed(module))
    check_spheres(once)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-6), module.project(once), once)


def test_training_keeps_weights_on_their_spheres():
    """Through the optimizer's updates, whatever the learning rate; they turn, and the average follows them."""
    config = base.digits("flow_matching")
    small = {"width": 8, "multipliers": (1,), "depth": 0, "head_width": 8}
    config.network = base.part(networks, "edm2_unet", **small)
    config.optimizer.update(learning_rate=0.1, schedule="constant")
    config.mesh.data = 1
    exp = experiment.build(config)
    current = experiment.init(exp)
    start = jax.device_get(current.params["student"])
    batch = experiment.global_batch(exp, exp.examples.batch(np.arange(config.train.batch_size)))
    step = experiment.train_step(exp)
    for _ in range(3):  # the first moves the output's gain alone, which is 0
        current, _ = step(current, batch)
    end, average = jax.device_get((current.params["student"], current.ema["0.999"]))
    check_spheres(end)
    kernel = ("Block_0", "first", "kernel")
    first, last, mean = (functools.reduce(dict.get, kernel, tree) for tree in (start, end, average))
    assert np.vdot(first, last) < 0.999 * np.vdot(first, first)
    assert np.vdot(mean, last) > np.vdot(first, last)


def check_spheres(params):
    """All kernels' features have mean square 1."""
    for path, p in jax.tree_util.tree_leaves_with_path(params):
        if path[-1].key == "kernel":
            mean_squares = np.square(p).mean(axis=tuple(range(p.ndim - 1)))
            np.testing.assert_allclose(mean_squares, 1, rtol=1e-5, err_msg=str(path))


@pytest.mark.float64
def test_the_diagonal_knows_nothing_of_how_the_end_time_enters():
    """v_{s,s} is the network of one time: the end time's weights and gain are of no use there, nor do they learn."""
    module = build("edm2_unet", dropout=0.0)
    params = perturbed(module)
    x, s, _, cond = inputs(module)
    diagonal = jax.jit(lambda params: jnp.sum(networks.bind(module, params)(x, s, s, cond) ** 2))
    gradient = jax.jit(jax.grad(diagonal))(params)["Condition_0"]
    np.testing.assert_array_equal(gradient["duration"]["kernel"], 0)
    np.testing.assert_array_equal(gradient["duration_gain"], 0)
    assert np.abs(gradient["start"]["kernel"]).max() > 0


@pytest.mark.float64
def test_a_guided_network_starts_as_the_unguided_one_that_it_comes_from():
    plain, guided = build("edm2_unet", dropout=0.0), build("edm2_unet", dropout=0.0, guided=True)
    params, fresh = perturbed(plain), perturbed(guided, seed=1)
    x, s, t, cond = inputs(plain)
    started = networks.change("edm2_unet", "with_guidance_input")(params, fresh)
    asked = {**cond, "guidance": jnp.full(BATCH, 3.0)}
    np.testing.assert_allclose(bound(guided, started)(x, s, t, asked), bound(plain, params)(x, s, t, cond), rtol=1e-12)


def test_heads_fill_the_channels():
    with pytest.raises(UsageError, match=r"network\.head_width=12 does not divide a width of 16"):
        jax.eval_shape(partial(networks.init, build("edm2_unet", head_width=12)), jax.random.key(0))
