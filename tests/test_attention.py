"""Attention block after block: the plain formula under every transformation, in memory linear in the tokens."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_networks import build, inputs, perturbed

from benchmarks import attention_memory as memory
from benchmarks.attention_memory import tangent
from flowmaps import networks
from flowmaps.errors import UsageError
from flowmaps.identities import directional_derivative
from flowmaps.networks import attention

TILE = 4
blockwise = partial(attention.blockwise, tile=TILE)


def draw(n, m, d=6, seed=0, dtype=None):
    """Queries of n tokens, keys and values of m, in two heads."""
    keys = jax.random.split(jax.random.key(seed), 3)
    return tuple(jax.random.normal(key, (2, size, 2, d), dtype) for key, size in zip(keys, (n, m, m), strict=True))


def gradient(function, count=6):
    """Of a number that mixes all that the function gives, with respect to each of its arguments."""

    def mixed(*given):
        return sum(jnp.sum(jnp.sin(out)) for out in jax.tree.leaves(function(*given)))

    return jax.grad(mixed, tuple(range(count)))


def layers(form):
    """Attention to the same keys, three times over, as in a scanned stack."""

    def function(query, key, value):
        def layer(x, _):
            return x + form(x, key, value), None

        return jax.lax.scan(jax.checkpoint(layer), query, None, length=3)[0]

    return function


TRANSFORMS = {
    "value": lambda form: lambda *given: form(*given[:3]),
    "grad": lambda form: lambda *given: gradient(form, 3)(*given[:3]),
    "jvp": tangent,
    "grad of jvp, tangent stopped": lambda form: gradient(tangent(form, stopped=True)),
    "grad of jvp": lambda form: gradient(tangent(form)),
    "jvp of jvp": lambda form: lambda *given: jax.jvp(tangent(form), given, given),
    "vmap": lambda form: lambda *given: jax.vmap(gradient(tangent(form)))(*(jnp.stack([x, 2 * x]) for x in given)),
    "remat": lambda form: gradient(tangent(jax.checkpoint(form))),
    "remat of jvp": lambda form: gradient(jax.checkpoint(tangent(form))),
    "scan": lambda form: gradient(tangent(layers(form))),
}


def assert_close(found, expected, tolerance):
    """Arrays whose largest difference is so small against their largest number."""
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * np.abs(b).max())


@pytest.mark.float64
@pytest.mark.parametrize("name", TRANSFORMS)
def test_blocks_are_the_formula_under_every_transformation(name):
    """7 queries in 2 tiles and 11 keys in 3, of which the last ones are padded."""
    given = (*draw(7, 11), *draw(7, 11, seed=1))
    forms = (blockwise, attention.plain)
    found, expected = jax.jit(lambda *given: [TRANSFORMS[name](form)(*given) for form in forms])(*given)
    assert_close(found, expected, 1e-12)


@pytest.mark.float64
@pytest.mark.parametrize(("n", "m"), [(8, 8), (1, 9), (5, 1)])
def test_any_numbers_of_tokens(n, m):
    given = (*draw(n, m), *draw(n, m, seed=1))
    found, expected = jax.jit(lambda *given: [tangent(form)(*given) for form in (blockwise, attention.plain)])(*given)
    assert_close(found, expected, 1e-12)


@pytest.mark.float64
def test_keys_that_pad_a_tile_count_nothing():
    """Queries of zero mean over all values: not over zeros beside them."""
    query, key, value = draw(5, 11)
    expected = jnp.broadcast_to(value.mean(axis=1, keepdims=True), query.shape)
    np.testing.assert_allclose(blockwise(0 * query, key, value), expected, rtol=1e-12)


@pytest.mark.float64
def test_a_shift_of_all_scores_changes_nothing():
    """Keys that all move alike add the same to each of a query's scores, 1,000 here: so the derivative along it is 0
    too."""
    query, key, value = draw(5, 11)
    shift = jnp.broadcast_to(1e3 * jnp.ones(6), key.shape)
    moved = jax.jvp(lambda key: blockwise(query, key, value), (key + shift,), (shift / 1e3,))
    np.testing.assert_allclose(moved[0], blockwise(query, key, value), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(moved[1], 0, atol=1e-12)


def test_large_scores_choose_one_value():
    """Of scores of a million, whose exponential no float32 holds, the largest has all the weight, and its value all of
    the gradient."""
    query, key, value = draw(5, 11)
    query, cotangent = 1e6 * query, draw(5, 5, seed=1)[0]
    scores = jnp.einsum("bqhd,bkhd->bhqk", query, key)
    assert jnp.abs(scores).max() > 1e6
    chosen = jax.nn.one_hot(scores.argmax(axis=-1), 11)
    out, gradient = jax.jit(lambda *given: (blockwise(*given), jax.vjp(blockwise, *given)[1](cotangent)))(
        query, key, value
    )
    np.testing.assert_array_equal(out, jnp.einsum("bhqk,bkhd->bqhd", chosen, value))
    np.testing.assert_allclose(gradient[2], jnp.einsum("bhqk,bqhd->bkhd", chosen, cotangent), rtol=1e-6)
    np.testing.assert_allclose(gradient[0], 0, atol=1e-5)


def test_blocks_of_bfloat16_err_no_more_than_the_formula():
    """Against float64: the value and the derivative, for the sums over tiles are in float32."""
    given = [x.astype(jnp.bfloat16) for x in (*draw(64, 512), *draw(64, 512, seed=1))]
    found = [jax.jit(tangent(form))(*given) for form in (partial(attention.blockwise, tile=32), attention.plain)]
    with jax.enable_x64(True):
        exact = jax.device_get(tangent(attention.plain)(*(np.asarray(x).astype(np.float64) for x in given)))
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(jnp.bfloat16)}
    for blocks, formula, true in zip(*found, exact, strict=True):
        errors = [np.sqrt(np.mean((np.asarray(x).astype(np.float64) - true) ** 2)) for x in (blocks, formula)]
        assert errors[0] < 1.1 * errors[1]


def is_blockwise(function, *given):
    """Whether the function's program has a loop, as no network here has without one of blocks."""
    return "scan[" in str(jax.make_jaxpr(function)(*given))


def test_auto_is_the_formula_up_to_a_thousand_tokens():
    def one(n, m):
        shapes = [jax.ShapeDtypeStruct((1, size, 1, 4), jnp.float32) for size in (n, m, m)]
        return is_blockwise(attention.attend, *shapes)

    assert not one(1024, 1024) and not one(16, 65_536)
    assert one(1025, 1024) and one(1024, 1025) and one(4096, 4096)


@pytest.mark.long
@pytest.mark.float64
def test_a_scanned_transformer_is_the_same_network_with_blocks():
    """Of 256 tokens: its output, and the full gradient of a loss of its derivative, with all but products with weights
    computed anew."""
    options = {"shape": (16, 16, 1), "patch": 1, "width": 8, "positions": "rotary", "qk_norm": True, "dropout": 0.0}
    modules = [build("dit", attention=form, scan=True, remat="full", **options) for form in ("blockwise", "xla")]
    params, (x, s, t, cond) = perturbed(modules[0]), inputs(modules[0], batch=1)

    def loss(module, params):
        def function(x, s, t):
            return networks.bind(module, params)(x, s, t, cond)

        u, du = directional_derivative(function, (x, s, t), (jnp.ones_like(x), jnp.ones_like(s), -jnp.ones_like(t)))
        return jnp.mean((u + du) ** 2), u

    found, expected = (jax.jit(jax.value_and_grad(partial(loss, m), has_aux=True))(params) for m in modules)
    assert_close(found, expected, 1e-12)


FIELDS = {"dit": "attention", "in_context_dit": "attention", "unet": "attention_form", "edm2_unet": "attention_form"}


@pytest.mark.parametrize("name", FIELDS)
def test_every_network_with_attention_has_the_choice(name):
    """ "auto" is the formula here. A form that there is not, as a fused kernel's would be, is refused."""
    for form in ("auto", "blockwise"):
        module = build(name, **{FIELDS[name]: form})
        assert is_blockwise(partial(networks.init, module), jax.random.key(0)) == (form == "blockwise")
    with pytest.raises(UsageError, match=f"unknown {FIELDS[name]} of network {name} 'cudnn': .*auto, blockwise, xla"):
        build(name, **{FIELDS[name]: "cudnn"})


WORK = {
    "xla": {"forward": 1, "grad": 3, "jvp": 3, "grad of jvp, stopped": 5, "grad of jvp, full": 9},
    "blockwise": {"forward": 1, "grad": 4.5, "jvp": 3, "grad of jvp, stopped": 6.5, "grad of jvp, full": 13.5},
}
"""Products of activations, in units of the two of the formula."""


@pytest.mark.parametrize("form", WORK)
def test_work_of_each_derivative(form):
    """Of blocks a backward pass computes the sums once more, and then each block."""
    derivatives = {name: make(memory.FORMS[form]) for name, make in memory.DERIVATIVES.items()}
    assert {name: memory.work(function, 1024) for name, function in derivatives.items()} == WORK[form]


def test_devices_that_share_a_batch_need_nothing_of_each_other():
    """Neither for the value nor for any derivative: tiles are cut of tokens, never of rows."""
    mesh = jax.make_mesh((8,), ("data",))
    where = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    given = [jax.ShapeDtypeStruct((8, 10, 2, 4), jnp.float32, sharding=where)] * 6
    program = jax.jit(gradient(tangent(blockwise))).lower(*given).compile().as_text()
    assert "f32[1,10,2,4]" in program and not re.search(r"all-|collective-|reduce-scatter", program)


def test_memory_is_linear_in_the_tokens():
    """Of a tangent; that of the formula is quadratic."""

    def growth(form):
        return memory.temporaries(tangent(form), 2048) / memory.temporaries(tangent(form), 1024)

    assert growth(attention.blockwise) < 2 and growth(attention.plain) > 3.5


def test_a_full_gradient_of_4096_tokens_fits_in_120_mib():
    """Of 6 heads of 64; the formula has 12 copies of a matrix of 384."""
    full = memory.DERIVATIVES["grad of jvp, full"]
    assert memory.temporaries(full(attention.blockwise), 4096) < 120
    assert memory.temporaries(full(attention.plain), 4096) > 12 * 384
