"""Networks: exact derivatives, precision, dropout by rows, labels and parameter counts."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import BATCH, FILES, SMALL, bound, build, count, inputs, perturbed

from flowmaps import networks, rows
from flowmaps.errors import UsageError
from flowmaps.guidance import with_guidance
from flowmaps.identities import directional_derivative
from flowmaps.networks import embeddings


def test_what_a_network_shows_of_its_inside_is_what_its_output_is_made_of():
    """A perceptron's hidden layers in their order: the last layer's kernel makes the output of the last of them."""
    module = build("mlp")
    params, shown = perturbed(module), []
    out = networks.bind(module, params, shown)(*inputs(module))
    layer, _ = networks.load("mlp").last_kernel(params)
    assert [h.shape for h in shown] == [(BATCH, 16)] * 2
    np.testing.assert_allclose(shown[-1] @ params[layer]["kernel"] + params[layer]["bias"][None], out, rtol=1e-5)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("dit", [(16, 16)] * 2),
        ("modern", [(16, 16)] * 2),
        ("in_context_dit", [(16, 16)] * 2),
        ("unet", [(4, 4, 16)]),
        ("edm2_unet", [(4, 4, 16)]),
        ("residual", [(16,)] * 2),
    ],
)
def test_each_network_shows_its_inside(name, shapes):
    """A DiT its blocks' tokens, a U-Net its bottleneck, a residual perceptron its layers."""
    module, shown = build(name), []
    jax.eval_shape(lambda params: networks.bind(module, params, shown)(*inputs(module)), perturbed(module))
    assert [h.shape[1:] for h in shown] == shapes


@pytest.mark.float64
@pytest.mark.parametrize("through_dropout", [False, True])
@pytest.mark.parametrize("name", SMALL)
def test_forward_derivative_against_central_differences(name, through_dropout):
    """In float64, along a random direction of (x, s, t), with the dropout mask held by its keys."""
    module = build(name)
    net = bound(module, perturbed(module))
    x, s, t, cond = inputs(module)
    dropout = rows.keys(jax.random.key(3), 0, BATCH) if through_dropout else None

    def function(x, s, t):
        return net(x, s, t, cond, dropout=dropout)

    direction = jax.tree.map(lambda v: jax.random.normal(jax.random.key(9), v.shape), (x, s, t))
    _, derivative = directional_derivative(function, (x, s, t), direction)

    def at(h):
        return function(*(v + h * d for v, d in zip((x, s, t), direction, strict=True)))

    central = (at(1e-5) - at(-1e-5)) / 2e-5
    np.testing.assert_allclose(derivative, central, atol=1e-7 * np.abs(central).max())


@pytest.mark.parametrize("name", SMALL)
def test_rows_do_not_see_each_other(name):
    """A row's output, dropout included, is the same in any batch: masks belong to rows."""
    module = build(name)
    net = bound(module, perturbed(module))
    x, s, t, cond = inputs(module)
    keys = rows.keys(jax.random.key(3), 0, BATCH)
    whole = net(x, s, t, cond, dropout=keys)
    half = net(x[2:], s[2:], t[2:], {"label": cond["label"][2:]}, dropout=keys[2:])
    np.testing.assert_allclose(half, whole[2:], rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", SMALL)
def test_dropout_shares_its_mask_by_its_keys(name):
    module = build(name)
    net = bound(module, perturbed(module))
    arguments = inputs(module)
    keys = rows.keys(jax.random.key(3), 0, BATCH)
    one, same, other, none = (net(*arguments, dropout=k) for k in (keys, keys, rows.fold(keys, 1), None))
    np.testing.assert_array_equal(one, same)
    assert np.all(np.abs(one - other).reshape(BATCH, -1).max(axis=1) > 0)
    assert np.all(np.abs(one - none).reshape(BATCH, -1).max(axis=1) > 0)


def test_dropout_keeps_the_mean():
    keys = rows.keys(jax.random.key(0), 0, 20_000)
    out = embeddings.row_dropout(jnp.ones((20_000, 4)), 0.3, keys)
    assert set(np.unique(np.asarray(out)).round(5)) == {0.0, np.float32(1 / 0.7).round(5)}
    np.testing.assert_allclose(out.mean(), 1.0, atol=4 * (0.3 / 0.7 / 80_000) ** 0.5)


@pytest.mark.parametrize("name", SMALL)
def test_labels_matter_and_none_is_a_label_of_its_own(name):
    module = build(name)
    net = bound(module, perturbed(module))
    x, s, t, _ = inputs(module)
    outs = [net(x, s, t, {"label": jnp.full(BATCH, label, jnp.int32)}) for label in (0, 1, 2, -1)]
    for i in range(4):
        for j in range(i):
            assert np.abs(outs[i] - outs[j]).max() > 1e-4
    np.testing.assert_array_equal(net(x, s, t, {}), outs[3])


@pytest.mark.parametrize("name", ["dit", "modern", "in_context_dit", "unet", "edm2_unet"])
def test_output_is_float32_with_a_bfloat16_body_and_times_keep_their_precision(name):
    """The derivative in t of a bfloat16 network stays near the float32 one: times never pass through bfloat16."""
    changed = {"dropout": 0.0} | ({"depth": 0} if name == "unet" else {})
    module = build(name, dtype="bfloat16", **changed)
    params = perturbed(module)
    full = build(name, **changed)
    x, s, t, cond = inputs(module)

    def derivative(module):
        net = bound(module, params)
        return directional_derivative(lambda t: net(x, s, t, cond), (t,), (jnp.ones_like(t),))

    (low, d_low), (high, d_high) = derivative(module), derivative(full)
    assert low.dtype == d_low.dtype == jnp.float32
    assert np.linalg.norm(low - high) < 0.02 * np.linalg.norm(high)
    assert np.linalg.norm(d_low - d_high) < 0.05 * np.linalg.norm(d_high)


def test_time_embedding_is_smooth():
    """No frequency above 8: the second derivative of a feature is at most 64."""
    t = jnp.linspace(0, 1, 1001)
    features = np.asarray(embeddings.smooth_embedding(t, 32), np.float64)
    curvature = np.diff(features, n=2, axis=0) / 1e-6
    assert np.abs(curvature).max() < 64 * 1.1
    assert np.linalg.matrix_rank(features[::50], tol=1e-4) >= 6


def test_adaln_zero_starts_at_zero():
    module = build("dit")
    params = jax.jit(partial(networks.init, module))(jax.random.key(0))
    np.testing.assert_array_equal(bound(module, params)(*inputs(module)), 0)


def test_the_unet_is_edms_but_for_its_second_time():
    """EDM's DDPM++ for CIFAR-10 has 55.7 M parameters; its embedding's first layer reads 128 numbers, here 1,024."""
    unet = networks.make("unet", shape=(32, 32, 3), num_classes=0)
    assert abs((count(unet) - (1024 - 128) * 512) / 55.73e6 - 1) < 1e-3


@pytest.mark.parametrize("name", SMALL)
def test_heads_share_one_evaluation_and_the_first_is_the_output(name):
    module = build(name, outputs=2)
    net, arguments = networks.bind(module, perturbed(module)), inputs(module)
    heads = jax.jit(net.heads)(*arguments)
    assert [head.shape for head in heads] == [arguments[0].shape] * 2
    np.testing.assert_allclose(bound(module, perturbed(module))(*arguments), heads[0], rtol=1e-5)
    assert np.abs(heads[0] - heads[1]).max() > 1e-3


def test_parameter_counts():
    """The checker's perceptron as in arXiv:2505.18825's trial and full size."""
    assert count(networks.make("mlp", shape=(2,), num_classes=0, width=128, depth=4)) == 50_434
    assert (
        count(networks.make("mlp", shape=(2,), num_classes=0, width=512, depth=5))
        == 4 * 512 + 4 * 512**2 + 5 * 512 + 1026
    )


@pytest.mark.float64
def test_scale_of_the_perceptron_is_a_change_of_units():
    """scale c: f_c(c x) = c f_1(x)."""
    one, scaled = (build("mlp", scale=c, dropout=0.0) for c in (1.0, 3.0))
    params = perturbed(one)
    x, s, t, cond = inputs(one)
    left = networks.bind(scaled, params)(3 * x, s, t, cond)
    np.testing.assert_allclose(left, 3 * networks.bind(one, params)(x, s, t, cond), rtol=1e-12)


def test_log_variance_starts_at_zero_and_is_linear():
    module = networks.make("log_variance", shape=(2,), num_classes=0)
    s, t = jnp.array([0.1, 0.7]), jnp.array([0.4, 0.9])
    np.testing.assert_array_equal(networks.bind(module, networks.init(module, jax.random.key(0)))(s, t), 0)
    params = perturbed(module)
    doubled = jax.tree.map(lambda p: 2 * p, params)
    pair = networks.bind(module, doubled)(s, t), 2 * networks.bind(module, params)(s, t)
    np.testing.assert_allclose(*pair, rtol=1e-6)


def test_patches_must_fill_the_image():
    module = networks.make("dit", shape=(9, 9, 1), num_classes=0, width=16, depth=1, heads=2)
    with pytest.raises(UsageError, match="9x9 cannot be cut into patches of 2"):
        networks.init(module, jax.random.key(0))


@pytest.mark.parametrize("width", [2, 6, 48, 52])
def test_any_width_has_groups_to_normalise(width):
    module = networks.make("unet", shape=(4, 4, 1), num_classes=0, width=width, multipliers=(1, 3), depth=1)
    jax.eval_shape(partial(networks.init, module), jax.random.key(0))


@pytest.mark.parametrize("name", ["unet", "dit"])
def test_heads_must_divide_the_width(name):
    module = networks.make(name, shape=(4, 4, 1), num_classes=0, width=8, heads=3, depth=1)
    with pytest.raises(UsageError, match=r"network\.heads=3 does not divide a width of (8|16)"):
        jax.eval_shape(partial(networks.init, module), jax.random.key(0))


def test_sides_must_halve():
    module = networks.make("unet", shape=(6, 6, 1), num_classes=0, width=8)
    with pytest.raises(UsageError, match="6x6 cannot be halved 2 times"):
        jax.eval_shape(partial(networks.init, module), jax.random.key(0))


def test_unknown_network_and_option():
    with pytest.raises(UsageError, match="did you mean 'dit'"):
        networks.make("diT", shape=(2,), num_classes=0)
    with pytest.raises(UsageError, match="did you mean 'width'"):
        networks.make("mlp", shape=(2,), num_classes=0, widht=3)


@pytest.mark.parametrize("name", SMALL)
def test_guidance_is_an_input_whose_absence_is_scale_one(name):
    """In all of [0, 1]; another scale or interval is another velocity."""
    module = build(name, guided=True)
    net = bound(module, perturbed(module))
    x, s, t, cond = inputs(module)

    def at(scale, interval):
        return net(x, s, t, with_guidance(cond, jnp.full(BATCH, scale), interval))

    unguided = net(x, s, t, cond)
    np.testing.assert_allclose(unguided, at(1.0, (0.0, 1.0)), rtol=1e-6, atol=1e-6)
    for other in (at(2.0, (0.0, 1.0)), at(1.0, (0.2, 1.0)), at(1.0, (0.0, 0.7))):
        assert np.abs(other - unguided).max() > 1e-4 * np.abs(unguided).max()


@pytest.mark.float64
@pytest.mark.parametrize("name", [name for name in SMALL if name != "edm2_unet"])
def test_a_network_is_affine_in_its_last_kernel(name):
    """Without it nothing of x is left, but the last bias. (EDM2's is on a sphere.)"""
    module = build(name)
    params = perturbed(module)
    layer, part = networks.load(FILES.get(name, name)).last_kernel(params)
    x, s, t, cond = inputs(module)

    def at(scale):
        kernel = scale * params[layer][part]
        return bound(module, {**params, layer: {**params[layer], part: kernel}})(x, s, t, cond)

    np.testing.assert_allclose(at(2.0) - at(1.0), at(1.0) - at(0.0), atol=1e-12)
    np.testing.assert_allclose(at(0.0), np.broadcast_to(at(0.0)[:1], x.shape), atol=1e-12)
    assert np.abs(at(1.0) - at(0.0)).max() > 1e-3


@pytest.mark.float64
@pytest.mark.parametrize("name", SMALL)
def test_a_network_without_its_end_time_is_its_own_diagonal(name):
    """At any t it is v_{s,s}, of which its t had made another velocity."""
    module = build(name)
    params = perturbed(module)
    x, s, t, cond = inputs(module)
    net = jax.jit(lambda params, t: networks.bind(module, params)(x, s, t, cond))
    changed = networks.change(FILES.get(name, name), "without_end_time")(params)
    np.testing.assert_allclose(net(changed, t), net(params, s), rtol=1e-9, atol=1e-9)
    assert np.abs(net(params, t) - net(params, s)).max() > 1e-4


def test_a_network_without_the_input_is_refused():
    with pytest.raises(UsageError, match="network 'log_variance' takes no guidance as an input"):
        networks.make("log_variance", shape=(2,), num_classes=0, guided=True)


def test_double_norm_bounds_what_the_condition_does():
    """Scales and shifts of mean square 1, however large the condition's are: twice of them is the same network."""
    outputs = {}
    for modulation in ("scale_shift", "double_norm"):
        module = build("unet", modulation=modulation, dropout=0.0)
        params = perturbed(module)

        def louder(path, p):
            modulates = "Block" in jax.tree_util.keystr(path) and "Dense_0" in jax.tree_util.keystr(path)
            return 2 * p if modulates else p

        x, s, t, cond = inputs(module)
        twice = jax.tree_util.tree_map_with_path(louder, params)
        outputs[modulation] = [np.asarray(bound(module, p)(x, s, t, cond)) for p in (params, twice)]
    assert np.abs(np.subtract(*outputs["scale_shift"])).max() > 1e-2
    np.testing.assert_allclose(*outputs["double_norm"], atol=1e-4)
