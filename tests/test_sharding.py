import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from flowmaps import sharding
from flowmaps.errors import UsageError


@pytest.mark.parametrize(("data", "fsdp", "shape"), [(-1, 1, (8, 1)), (-1, 4, (2, 4)), (2, 2, (2, 2)), (1, 1, (1, 1))])
def test_mesh_has_the_asked_shape(data, fsdp, shape):
    mesh = sharding.make_mesh(data, fsdp)
    assert tuple(mesh.shape.values()) == shape
    assert list(mesh.devices.flat) == jax.devices()[: np.prod(shape)]


@pytest.mark.parametrize(
    ("data", "fsdp", "words"),
    [
        (-1, 3, "mesh.fsdp=3 does not divide the 8 devices"),
        (5, 2, "mesh.data=5 times mesh.fsdp=2 takes 10 devices, and there are 8"),
        (0, 1, "mesh.data=0"),
        (-1, 0, "mesh.fsdp=0"),
    ],
)
def test_mesh_that_does_not_fit_says_the_numbers(data, fsdp, words):
    with pytest.raises(UsageError, match=words):
        sharding.make_mesh(data, fsdp)


def test_batch_that_does_not_divide_says_the_numbers():
    mesh = sharding.make_mesh()
    sharding.check_batch(mesh, 64, 4)
    with pytest.raises(UsageError, match=r"train.batch_size=100 is not a multiple of 32 \(8 devices x 4"):
        sharding.check_batch(mesh, 100, 4)
    with pytest.raises(UsageError, match="accumulate=0"):
        sharding.check_batch(mesh, 64, 0)


@pytest.mark.parametrize(
    ("shape", "spec"),
    [
        ((128, 64), P("fsdp", None)),  # the largest axis
        ((64, 128), P(None, "fsdp")),
        ((127, 64), P(None, "fsdp")),  # the largest that 4 divides
        ((127, 63), P()),  # none
        ((4, 4), P()),  # too small to cut
        ((), P()),
    ],
)
def test_state_is_cut_along_its_largest_divisible_axis(shape, spec):
    mesh = sharding.make_mesh(fsdp=4)
    assert sharding.state(mesh, jax.ShapeDtypeStruct(shape, jnp.float32)).spec == spec


def test_state_is_copied_where_nothing_is_cut():
    mesh = sharding.make_mesh()
    assert sharding.state(mesh, jax.ShapeDtypeStruct((1024, 1024), jnp.float32)).spec == P()


def test_global_batch_puts_consecutive_rows_on_each_device():
    batch = sharding.global_batch(sharding.make_mesh(fsdp=2), {"x1": np.arange(32.0).reshape(16, 2)})
    shards = sorted(batch["x1"].addressable_shards, key=lambda s: s.device.id)
    for number, shard in enumerate(shards):
        np.testing.assert_array_equal(shard.data, np.arange(32.0).reshape(8, 2, 2)[number])


def test_cut_takes_a_block_of_consecutive_rows_from_each_device():
    parts = sharding.cut({"row": jnp.arange(24)}, parts=3, devices=2)["row"]
    np.testing.assert_array_equal(
        parts, [[0, 1, 2, 3, 12, 13, 14, 15], [4, 5, 6, 7, 16, 17, 18, 19], [8, 9, 10, 11, 20, 21, 22, 23]]
    )


def test_cut_cuts_keys_too():
    keys = jax.random.split(jax.random.key(0), 8)
    assert sharding.cut(keys, parts=2, devices=2).shape == (2, 4)
