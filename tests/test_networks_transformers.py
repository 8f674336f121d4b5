"""Transformers: the papers' sizes, blocks that are scanned and computed anew, positions by rotation."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import BATCH, build, count, inputs, perturbed

from configs import base
from flowmaps import networks, rows
from flowmaps.errors import UsageError
from flowmaps.identities import directional_derivative
from flowmaps.networks import _patches, _self_attention


def dit_of_the_paper(width, depth, patch, channels=4):
    """Parameters of DiT (arXiv:2212.09748): blocks of 4 w^2 in attention, 8 w^2 in the perceptron and 6 w^2 in the
    modulation; one time of 256 numbers; 1,000 classes and none; noise and variance as outputs."""
    block = 18 * width**2 + 15 * width
    time, labels = 256 * width + width**2 + 2 * width, 1001 * width
    last = 2 * width**2 + 2 * width + (width + 1) * patch**2 * 2 * channels
    return patch**2 * channels * width + width + time + labels + depth * block + last


@pytest.mark.parametrize(("size", "millions"), [("s", 33), ("b", 130), ("l", 458), ("xl", 675)])
@pytest.mark.parametrize("patch", [1, 2, 8, 16])
def test_dit_has_the_papers_parameters(size, millions, patch):
    """But for its times, two of `width` numbers in place of one of 256, and for the variance, which is no output."""
    module = networks.make("dit", shape=(32, 32, 4), num_classes=1000, **base.dit(size, patch))
    paper = dit_of_the_paper(module.width, module.depth, patch)
    assert count(module) == paper + (2 * module.width - 256) * module.width - (module.width + 1) * patch**2 * 4
    if patch == 2:
        assert round(paper / 1e6) == millions


def stacked(params, depth):
    """Parameters of blocks that are written out, as those of a scan."""
    rest = {name: p for name, p in params.items() if not name.startswith("Block")}
    blocks = [params[f"Block_{i}"] for i in range(depth)]
    return {**rest, "Block_0": jax.tree.map(lambda *p: jnp.stack(p), *blocks)}


def residual(module, arguments, keys):
    """A loss of the network and of its derivative in (x, s, t), as a function of its parameters."""
    x, s, t, cond = arguments

    def loss(params):
        def function(x, s, t):
            return networks.bind(module, params)(x, s, t, cond, dropout=keys)

        u, du = directional_derivative(function, (x, s, t), (jnp.ones_like(x), jnp.ones_like(s), -jnp.ones_like(t)))
        return jnp.mean((u + du) ** 2)

    return loss


@pytest.fixture(scope="module")
def written_out():
    """A DiT of blocks written out, with dropout: its parameters, inputs, keys, and the loss with its gradient."""
    with jax.enable_x64(True):
        module = build("dit", patch=4)
        params, arguments = perturbed(module), inputs(module)
        keys = rows.keys(jax.random.key(3), 0, BATCH)
        return params, arguments, keys, jax.jit(jax.value_and_grad(residual(module, arguments, keys)))(params)


@pytest.mark.float64
@pytest.mark.parametrize(("remat", "scan"), [("full", False), ("dots", False), ("none", True), ("full", True)])
def test_blocks_scanned_or_computed_anew_are_the_same_network(written_out, remat, scan):
    """The value and gradient of a loss of the derivative: the layers' dropout masks are those of blocks written out,
    and so differ from each other."""
    params, arguments, keys, (value, gradient) = written_out
    module = build("dit", patch=4, remat=remat, scan=scan)
    given, expected = (stacked(tree, 2) if scan else tree for tree in (params, gradient))
    found_value, found = jax.jit(jax.value_and_grad(residual(module, arguments, keys)))(given)
    np.testing.assert_allclose(found_value, value, rtol=1e-12)
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), found, expected)


def abstract(module):
    return jax.eval_shape(partial(networks.init, module), jax.random.key(0))


def equations(depth, scan):
    """Of the program of a gradient of a loss of a derivative."""
    module = build("dit", depth=depth, scan=scan, remat="dots")
    loss = residual(module, inputs(module), rows.keys(jax.random.key(3), 0, BATCH))
    return len(str(jax.make_jaxpr(jax.grad(loss))(abstract(module))).splitlines())


def test_the_program_of_a_scan_does_not_grow_with_depth():
    assert equations(6, True) == equations(2, True) < equations(2, False)


def kept(module):
    """Numbers kept from the forward for the backward pass."""
    x, s, t, cond = inputs(module)

    def residuals(params):
        return jax.vjp(lambda params: networks.bind(module, params)(x, s, t, cond), params)[1]

    return sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(residuals, abstract(module))))


def test_what_is_computed_anew_is_not_kept():
    """Of a block that is computed anew nothing but its input, beside its parameters; of one whose products with
    weights are kept less than of one that is kept whole."""
    layer = {
        remat: kept(build("dit", remat=remat, scan=True, depth=3)) - kept(build("dit", remat=remat, scan=True, depth=2))
        for remat in ("full", "dots", "none")
    }
    weights = count(build("dit", depth=3)) - count(build("dit", depth=2))
    tokens = BATCH * 16 * 16
    assert weights + tokens <= layer["full"] <= weights + tokens + 1
    assert layer["full"] < layer["dots"] < layer["none"]


def test_a_scan_draws_its_layers_apart():
    params = jax.jit(partial(networks.init, build("dit", scan=True)))(jax.random.key(0))
    kernel = params["Block_0"]["Attention_0"]["DenseGeneral_0"]["kernel"]
    assert kernel.shape[0] == 2 and np.abs(kernel[0] - kernel[1]).min() > 0
    np.testing.assert_allclose(np.std(kernel), 16**-0.5, rtol=0.1)  # of a width of 16, not of 2 x 16


def test_patches_go_back_to_where_they_were():
    x = jnp.arange(2 * 8 * 12 * 3.0).reshape(2, 8, 12, 3)
    tokens = _patches.to_tokens(x, 4)
    np.testing.assert_array_equal(tokens[0, 4].reshape(4, 4, 3), x[0, 4:, 4:8])  # of two rows of three
    np.testing.assert_array_equal(_patches.to_images(tokens, x, 4)[0], x)


@pytest.mark.float64
def test_rotated_queries_and_keys_know_of_differences_of_places_alone():
    """And keep their lengths; rows and columns are told apart."""
    query, key = jax.random.normal(jax.random.key(0), (2, 1, 1, 1, 16))
    angles = _patches.axial_angles(5, 7, 16).reshape(5, 7, 8)

    def score(at_query, at_key):
        turned = (_self_attention.rotated(x, angles[place][None]) for x, place in ((query, at_query), (key, at_key)))
        return float(jnp.vdot(*turned))

    np.testing.assert_allclose(score((0, 1), (2, 4)), score((2, 3), (4, 6)), rtol=1e-12)
    np.testing.assert_allclose(score((3, 3), (3, 3)), float(jnp.vdot(query, key)), rtol=1e-12)
    assert abs(score((0, 0), (1, 2)) - score((0, 0), (2, 1))) > 1e-2


@pytest.mark.float64
def test_normed_queries_and_keys_bound_what_the_input_does():
    """A query twice as long is the same query: attention with them is linear in its input's length."""
    x = 100 * jax.random.normal(jax.random.key(0), (2, 5, 8))
    module = _self_attention.Attention(2, None, use_bias=False, qk_norm=True)
    variables = module.init(jax.random.key(1), x)
    np.testing.assert_allclose(module.apply(variables, 3 * x), 3 * module.apply(variables, x), rtol=1e-5)


def test_rotations_need_pairs_of_two_axes():
    module = networks.make("dit", shape=(8, 8, 1), num_classes=0, width=12, heads=2, depth=1, positions="rotary")
    with pytest.raises(UsageError, match="heads of a multiple of 4 channels, not 6"):
        abstract(module)


@pytest.mark.parametrize(("size", "millions"), [("b", 89), ("m", 174), ("l", 409), ("xl", 610)])
def test_the_transformer_in_context_has_the_papers_parameters(size, millions):
    """iMF's sizes (arXiv:2512.02012) without its second head, of one time and a guidance of three numbers: blocks of
    4 w^2 in attention and 8 w^2 in the perceptron; the second head is 8 of them and a last layer."""
    options = {"shape": (32, 32, 4), "num_classes": 1000, "guided": True, "start_time": False, **base.in_context(size)}
    module = networks.make("in_context_dit", **options)
    width, channels = module.width, module.width // module.heads
    hidden = int(8 / 3 * width)
    block = 4 * width**2 + 3 * hidden * width + 4 * width + 2 * channels
    last = width + (width + 1) * 16
    numbers, tokens = 4 * (256 * width + width**2 + 2 * width), (1001 + 20) * width
    expected = module.depth * block + last + numbers + tokens + 17 * width
    assert count(module) == expected and round(expected / 1e6) == millions
    assert count(networks.make("in_context_dit", outputs=2, **options)) == expected + 8 * block + last


def test_outputs_of_the_transformer_in_context_share_the_first_blocks_alone():
    """Perturbing a block of the trunk moves both; one of a head that head alone; and scans are the same network."""
    module = build("in_context_dit", outputs=2, depth=3, dropout=0.0)
    params, arguments = perturbed(module), inputs(module)
    heads = jax.jit(lambda params: networks.bind(module, params).heads(*arguments))
    reference = heads(params)
    for block, expected in {0: [True, True], 1: [True, True], 2: [True, False], 3: [False, True]}.items():
        moved = heads({**params, f"Block_{block}": jax.tree.map(lambda p: 1.1 * p, params[f"Block_{block}"])})
        assert [bool(np.any(a != b)) for a, b in zip(moved, reference, strict=True)] == expected


@pytest.mark.float64
def test_scanned_stacks_of_the_transformer_in_context_are_the_same_network():
    module, scanned = (build("in_context_dit", outputs=2, depth=3, scan=scan) for scan in (False, True))
    params, arguments = perturbed(module), inputs(module)
    keys = rows.keys(jax.random.key(3), 0, BATCH)
    given = {name: p for name, p in params.items() if not name.startswith("Block")}
    for name, blocks in {"Block_0": (0, 1), "Block_1": (2,), "Block_2": (3,)}.items():
        given[name] = jax.tree.map(lambda *p: jnp.stack(p), *(params[f"Block_{i}"] for i in blocks))
    found, expected = (
        jax.jit(networks.bind(*pair).heads)(*arguments, dropout=keys) for pair in ((scanned, given), (module, params))
    )
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_the_transformer_in_context_begins_as_zero_and_need_not_know_s():
    module = build("in_context_dit", start_time=False)
    x, s, t, cond = inputs(module)
    params = jax.jit(partial(networks.init, module))(jax.random.key(0))
    np.testing.assert_array_equal(networks.bind(module, params)(x, s, t, cond), 0)
    net = networks.bind(module, perturbed(module))
    np.testing.assert_allclose(net(x, s, t, cond), net(x, s + 0.25, t + 0.25, cond), rtol=1e-4, atol=1e-5)


def test_outputs_may_share_no_block():
    """Then a scan has no stack for a trunk."""
    blocks = [name for name in abstract(build("in_context_dit", head_depth=2, scan=True)) if name.startswith("Block")]
    assert blocks == ["Block_0"]


def test_heads_are_no_deeper_than_the_network():
    with pytest.raises(UsageError, match=r"network\.head_depth=3 exceeds network\.depth=2"):
        abstract(build("in_context_dit", head_depth=3))


def test_dits_parameters_keep_their_names_and_shapes():
    """By which runs are restored: layers are numbered as they are constructed."""
    dit = networks.make("dit", shape=(8, 8, 3), num_classes=2, patch=2, width=32, depth=1, heads=2)
    abstract = jax.eval_shape(lambda: networks.init(dit, jax.random.key(0)))
    kernels = {name: layer["kernel"].shape for name, layer in abstract["Block_0"].items() if "kernel" in layer}
    assert kernels == {"Dense_0": (32, 192), "Dense_1": (32, 128), "Dense_2": (128, 32)}
