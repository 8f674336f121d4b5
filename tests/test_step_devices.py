"""A step is the same on any number of devices and in any number of parts, and sends no more than it must."""

import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_steps import experiment, linear_params, regression, run, self_distillation

from flowmaps import interpolants, methods, samplers, sharding
from flowmaps.errors import UsageError
from flowmaps.guidance import ClassifierFree
from flowmaps.types import Method


@pytest.fixture(scope="module")
def on_one_device():
    method, params, binds = self_distillation()
    return run(*experiment(method, params, binds=binds, batch=128, decays=(0.9,), name="adam", learning_rate=1e-3))


@pytest.mark.parametrize(("data", "fsdp", "accumulate"), [(1, 1, 4), (8, 1, 1), (2, 4, 4)])
def test_devices_and_parts_change_nothing(on_one_device, data, fsdp, accumulate):
    """Loss, metrics, parameters and averages are those of one device and the whole batch."""
    method, params, binds = self_distillation()
    mesh = sharding.make_mesh(data, fsdp)
    parts = experiment(
        method,
        params,
        binds=binds,
        mesh=mesh,
        batch=128,
        accumulate=accumulate,
        decays=(0.9,),
        name="adam",
        learning_rate=1e-3,
    )
    cut = [a.sharding.spec for a in jax.tree.leaves(parts[1]) if not a.sharding.is_fully_replicated]
    assert len(cut) == (2 * 4 if fsdp > 1 else 0)  # two layers: parameters, two moments, one average
    current, history = run(*parts)
    expected, expected_history = on_one_device
    for ours, theirs in zip(history, expected_history, strict=True):
        for name in theirs:
            np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5, err_msg=name)
    for ours, theirs in zip(jax.tree.leaves(current), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)


@pytest.mark.float64
@pytest.mark.parametrize(("devices", "accumulate"), [(1, 2), (1, 8), (4, 2)])
def test_parts_are_the_whole_batch_to_rounding(devices, accumulate):
    method = Method({"student": regression}, samplers.composed)
    params = {"student": linear_params()}
    expected, expected_history = run(*experiment(method, params))
    mesh = sharding.make_mesh(devices)
    current, history = run(*experiment(method, params, mesh=mesh, accumulate=accumulate))
    chex.assert_trees_all_close(current.params, expected.params, rtol=1e-13)
    chex.assert_trees_all_close(history, expected_history, rtol=1e-13)


def test_parts_too_small_for_the_terms_are_refused():
    """8 devices x 2 parts of 32 rows leave blocks of 2 rows, which cannot be dealt 3 to 1."""
    method = Method({"student": regression}, samplers.composed)
    step, current, batch = experiment(method, {"student": linear_params()}, mesh=sharding.make_mesh(8), accumulate=2)
    with pytest.raises(UsageError, match="2 rows"):
        step(current, batch)


COLLECTIVES = r"= (\S+|\(.*?\)) (all-gather|all-to-all|collective-permute|reduce-scatter|all-reduce)(?:-start)?\("


@pytest.mark.parametrize(
    ("name", "accumulate", "calls"), [("flow_matching", 1, 1), ("lsd", 1, 3), ("lsd", 4, 3), ("shortcut", 1, 3)]
)
def test_the_only_collective_of_data_parallel_steps_is_one_all_reduce(name, accumulate, calls):
    """Of gradients and scalars alone; no activation moves. On a CPU each differentiated call of the network (a jvp
    counts as two) brings a gradient of its own, which is added to the others after the reduction."""
    _, params, binds = self_distillation()
    method = methods.load(name).make(interpolant=interpolants.linear(), total_steps=100)
    step, current, batch = experiment(
        method, params, binds=binds, mesh=sharding.make_mesh(8), batch=256, accumulate=accumulate, decays=(0.9,)
    )
    text = step.lower(current, batch).compile().as_text()
    found = re.findall(COLLECTIVES, text)
    assert [kind for _, kind in found] == ["all-reduce"]
    sizes = [
        int(np.prod([int(n) for n in dims.split(",") if n]))
        for shapes, _ in found
        for dims in re.findall(r"f32\[([\d,]*)\]", shapes)
    ]
    weights = [p.size for p in jax.tree.leaves(params)]
    assert set(sizes) <= {*weights, 1}
    assert sum(weights) <= sum(sizes) <= calls * sum(weights) + 16


def test_guidance_moves_no_rows_between_devices():
    """Its doubled batch is doubled on each device for itself."""
    mesh = sharding.make_mesh(8)

    def guided(x, s, label):
        velocity = ClassifierFree(lambda x, s, t, cond, *, dropout=None: x * cond["label"][:, None], 2.0)
        return velocity(x, s, s, {"label": label})

    shapes = ((64, 2), jnp.float32), ((64,), jnp.float32), ((64,), jnp.int32)
    arguments = [jax.ShapeDtypeStruct(*shape, sharding=sharding.rows(mesh)) for shape in shapes]
    assert not re.findall(COLLECTIVES, jax.jit(guided).lower(*arguments).compile().as_text())
