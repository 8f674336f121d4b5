"""What the scaling benchmark counts, on programs of which it is known, and what steps of data-parallel runs send."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from benchmarks import hlo, scaling
from flowmaps import interpolants, methods, networks, sharding

PROGRAM = """HloModule known, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%add (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  ROOT %sum = f32[] add(%a, %b)
}

%body (state: (s32[], f32[8])) -> (s32[], f32[8]) {
  %x = f32[8]{0} get-tuple-element(%state), index=1
  %reduced = f32[8]{0} all-reduce(%x), channel_id=1, to_apply=%add
  ROOT %next = (s32[], /*index=1*/f32[8]{0}) tuple(%n, %reduced)
}

%inner (x: bf16[2,3]) -> bf16[4,3] {
  %begun = (bf16[2,3]{1,0}, bf16[4,3]{1,0}) all-gather-start(%x), dimensions={0}
  ROOT %done = bf16[4,3]{1,0} all-gather-done(%begun)
}

ENTRY %main (p: f32[8]) -> f32[8] {
  %w = (s32[], f32[8]{0}) while(%start), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"5"}}
  %g = bf16[4,3]{1,0} call(%h), to_apply=%inner
  %both = (f32[2]{0}, /*index=1*/f32[3]{0}) all-reduce(%u, %v), channel_id=2, to_apply=%add
  ROOT %out = f32[8]{0} get-tuple-element(%w), index=1
}
"""


def test_collectives_count_as_often_as_they_are_called():
    """5 of 32 bytes in a loop and one of 20 bytes; 24 bytes in what is called, begun and done but sent once."""
    found = hlo.collectives(PROGRAM)
    assert found.calls == {"all-reduce": 6, "all-gather": 1}
    assert found.bytes == {"all-reduce": 5 * 32 + 20, "all-gather": 24}


def test_a_loop_that_sends_and_has_no_known_length_is_refused():
    with pytest.raises(ValueError, match="a loop of unknown length sends: %w = "):
        hlo.collectives(PROGRAM.replace("known_trip_count", "other"))


def test_a_compiled_loop_sends_at_every_turn():
    """A number of four bytes, of rows that are cut over the devices."""

    def norms(x):
        return jax.lax.scan(lambda total, row: (jnp.tanh(total) + (row * row).sum(), None), 0.0, x)[0]

    where = NamedSharding(sharding.make_mesh(8), P(None, "data"))
    x = jax.ShapeDtypeStruct((6, 64), jnp.float32, sharding=where)
    found = hlo.collectives(jax.jit(norms).lower(x).compile().as_text())
    assert found == ({"all-reduce": 6}, {"all-reduce": 6 * 4})


@pytest.mark.parametrize(
    ("name", "options"),
    [("flow_matching", {}), ("continuous_consistency", {"warmup_steps": 1, "learned_weight": False})],
)
def test_a_data_parallel_step_sends_its_gradient_once_and_a_jvp_nothing(name, options):
    """One all-reduce of as many numbers as the network has weights, and of the scalars that are logged. All rows of the
    first go through the network, those of the second through its jvp."""
    module = networks.make("mlp", shape=(2,), num_classes=0, width=16, depth=2)
    method = methods.load(name).make(interpolant=interpolants.linear(), total_steps=10, **options)
    found = scaling.costs(scaling.compiled(method, module, sharding.make_mesh(8), 32))
    weights = sum(p.size for p in jax.tree.leaves(networks.init(module, jax.random.key(0))))
    assert found["collectives"] == {"all-reduce": 1}
    assert 0 < found["bytes"]["all-reduce"] - 4 * weights <= 4 * 8


def test_an_all_reduce_of_eight_devices_sends_seven_quarters_of_its_bytes():
    machine = scaling.Machine(devices=8, peak=1e12, bandwidth=1e9)
    assert scaling.reduce_seconds(machine, 4e9) == 7.0
    assert scaling.step_seconds(machine, 10, "flow_matching") == pytest.approx(10 * 3 * 46e9 / 0.4e12)
