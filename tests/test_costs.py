"""What a step of each method costs, counted in its program: the floor of benchmarks/floors.py, and nothing in vain."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import step_cost
from benchmarks.counting import matmul_flops
from benchmarks.floors import CASES, work
from flowmaps import methods

SCANNED = {"depth": 2, "scan": True}
"""A scan merges nothing that is computed twice, as XLA may where layers are written out."""


def test_every_method_has_its_floor():
    assert {case.method for case in CASES.values()} == set(methods.names())


@pytest.mark.parametrize("name", CASES)
def test_a_step_costs_its_floor(name):
    floor, counted = step_cost.count(CASES[name], step_cost.network(CASES[name], **SCANNED))
    assert abs(counted - floor) < 0.05


@pytest.mark.parametrize("name", ["flow matching", "MeanFlow, guided by kappa", "LSD", "ESD", "CTM, one step of Heun"])
def test_layers_that_are_written_out_cost_as_much(name):
    floor, counted = step_cost.count(CASES[name], step_cost.network(CASES[name], depth=2))
    assert abs(counted - floor) < 0.05


FLOORS = {
    "flow matching": 3.00,
    "MeanFlow": 3.27,
    "LSD": 4.08,
    "ESD": 4.35,
    "PSD": 3.50,
    "shortcut, 1/8": 3.25,
    "shortcut, 1/4": 3.50,
    "consistency training": 4.00,
    "sCT": 4.10,
    "sCD": 5.10,
    "CTM, one step of Heun": 12.10,
}


@pytest.mark.parametrize("name", FLOORS)
def test_floors_in_evaluations(name):
    """Of transformers, whose tangents cost 1.1 evaluations."""
    floor = sum(work(dealt, tangent=1.1) for dealt in CASES[name].rows.values())
    assert abs(floor - FLOORS[name]) < 0.01


def test_a_tangent_of_a_transformer_costs_a_tenth_more_than_an_evaluation():
    found = step_cost.unit(step_cost.network(CASES["flow matching"]))
    assert abs(found.tangent - 1.1) < 0.001
    assert abs(found.evaluation / step_cost.BATCH - 96.87e9 / 8) < 1e7


@pytest.mark.parametrize(
    ("name", "kept", "full"), [("flow matching", 0.1, 1.0), ("MeanFlow, one diagonal row of 64", 0.1, 1.0)]
)
def test_remat_computes_anew_what_it_says(name, kept, full):
    """Attention alone, a tenth of an evaluation; or all of an evaluation, but its tangent that is stopped."""
    case = CASES[name]
    without, dots, all_ = (
        step_cost.count(case, step_cost.network(case, **SCANNED, remat=remat)).counted
        for remat in ("none", "dots", "full")
    )
    assert abs(dots - without - kept) < 0.02
    assert abs(all_ - without - full) < 0.02


def test_dots_and_convolutions_are_counted_by_hand():
    a, b = jnp.ones((3, 5)), jnp.ones((5, 7))
    assert matmul_flops(lambda a, b: a @ b, a, b) == 2 * 3 * 5 * 7
    image, kernel = jnp.ones((2, 8, 8, 4)), jnp.ones((3, 3, 4, 6))
    dimensions = ("NHWC", "HWIO", "NHWC")

    def convolve(x, k):
        return jax.lax.conv_general_dilated(x, k, (1, 1), "SAME", dimension_numbers=dimensions)

    assert matmul_flops(convolve, image, kernel) == 2 * (2 * 8 * 8 * 6) * (3 * 3 * 4)


def test_what_no_output_needs_is_not_counted():
    """Neither outside of a scan nor of its carry, of which one round may need what another one makes."""
    a = jnp.ones((4, 4))
    unit = 2 * 4**3

    def wasteful(x):
        unused = x @ x  # noqa: F841
        return x + 1

    assert matmul_flops(wasteful, a) == 0

    def scanned(x):
        def step(carry, _):
            first, second, third = carry
            return (second, first @ x, third @ x), None

        return jax.lax.scan(step, (x, x, x), None, length=6)[0][0]

    assert matmul_flops(scanned, a) == 6 * unit
    assert matmul_flops(lambda x: jax.lax.scan(lambda c, _: (c, c @ x), x, None, length=6)[0], a) == 0


def test_products_that_are_hidden_are_no_zero():
    """Of a kernel."""
    from jax.experimental import pallas

    def kernel(x, out):
        out[...] = x[...] @ x[...]

    call = pallas.pallas_call(kernel, out_shape=jax.ShapeDtypeStruct((4, 4), jnp.float32), interpret=True)
    with pytest.raises(ValueError, match="the products inside of 'pallas_call' cannot be counted"):
        matmul_flops(call, jnp.ones((4, 4)))


def test_passes_anew_and_branches_are_counted():
    a = jnp.ones((4, 4))
    unit = 2 * 4**3

    def square(x):
        return jnp.sin(x @ x)

    assert matmul_flops(lambda x: jax.grad(lambda x: square(x).sum())(x), a) == 3 * unit
    assert matmul_flops(lambda x: jax.grad(lambda x: jax.checkpoint(square)(x).sum())(x), a) == 3 * unit
    kept = jax.checkpoint(lambda x: jnp.sin(square(x)))
    assert matmul_flops(lambda x: jax.grad(lambda x: kept(x).sum())(x), a) == 3 * unit

    def beside(x):
        """Of two carries, one of which is read."""
        body = lambda carry: (carry[0] + 1, carry[1] @ x, carry[2] @ x @ x)  # noqa: E731
        return jax.lax.while_loop(lambda carry: carry[0] < carry[1].sum(), body, (0.0, x, x))[1]

    assert matmul_flops(beside, a) == unit
    branches = (lambda x: x, lambda x: x @ x, lambda x: x @ x @ x)
    assert matmul_flops(lambda i, x: jax.lax.switch(i, branches, x), 0, a) == 2 * unit
