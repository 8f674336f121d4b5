"""Checkpoints: bit for bit back, in any topology; broken ones passed by; none lost that should be kept."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from absl import logging
from flax import struct
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from flowmaps.checkpoints import Checkpoints, inventory
from flowmaps.errors import MissingError, UsageError


class State(struct.PyTreeNode):
    step: jax.Array
    params: dict
    opt_state: dict
    ema: dict
    target: dict | None


def sharding(devices: int, *, cut: bool = True) -> NamedSharding:
    mesh = jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])
    return NamedSharding(mesh, P("data") if cut else P())


def make_state(scale: float, devices: int = 1) -> State:
    """A state whose larger arrays are cut over the devices."""
    kernel = jax.random.normal(jax.random.key(0), (8, 40)) * scale
    params = {"student": {"kernel": kernel, "bias": jnp.zeros(3, jnp.bfloat16)}}
    opt_state = {"student": optax.adam(1e-3).init(params["student"])}
    state = State(jnp.int32(7), params, opt_state, {"0.999": params["student"]}, None)
    return jax.tree.map(lambda x: jax.device_put(x, sharding(devices, cut=x.ndim == 2)), state)


def abstract(tree):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x), np.asarray(y))


def save_steps(directory: Path, steps=(1, 2), meta=None) -> None:
    with Checkpoints(directory, keep=len(steps)) as checkpoints:
        for step in steps:
            checkpoints.save(step, make_state(step), {"position": step}, meta or {"commit": "abc"})


@pytest.fixture
def log(monkeypatch):
    """The lines that are logged as errors."""
    lines = []
    monkeypatch.setattr(logging, "error", lambda text, *values: lines.append(text % values))
    return lines


@pytest.mark.parametrize("saved, restored", [(1, 1), (1, 8), (8, 2)])
def test_round_trip_in_any_topology(tmp_path, saved, restored):
    state = make_state(1.0, saved)
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(7, state, {"position": 7}, {"commit": "abc"})
    wanted = abstract(make_state(0.0, restored))
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        step, back, data, meta = checkpoints.restore(wanted)
    assert (step, data, meta["commit"], meta["format_version"]) == (7, {"position": 7}, "abc", 1)
    assert back.params["student"]["kernel"].sharding == sharding(restored)
    assert_same(back, state)


def test_one_part_is_read_alone(tmp_path):
    save_steps(tmp_path)
    state = make_state(2)
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        back = checkpoints.restore({"ema": abstract(state.ema)}, partial=True).state
    assert_same(back, {"ema": state.ema})


def test_what_was_saved_is_the_state_of_that_moment(tmp_path):
    """The save is asynchronous and the buffers are given away to the next steps at once."""
    advance = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    state = {"x": jnp.zeros((1000, 1000))}
    with Checkpoints(tmp_path, keep=3) as checkpoints:
        for step in range(3):
            checkpoints.save(step, state, {}, {})
            for _ in range(5):
                state = advance(state)
        for step in range(3):
            back = checkpoints.restore(abstract(state), step).state
            np.testing.assert_array_equal(back["x"], np.full((1000, 1000), 5.0 * step))


def test_the_newest_the_best_and_the_periodic_are_kept_also_after_a_restart(tmp_path):
    scores = {1: 0.5, 2: 0.1, 3: 0.4, 4: None, 5: 0.3, 6: 0.9, 7: 0.8, 8: 0.7}
    options = {"keep": 2, "keep_best": 2, "keep_period": 4}
    for steps in ((1, 2, 3, 4), (5, 6, 7, 8)):
        with Checkpoints(tmp_path, **options) as checkpoints:
            for step in steps:
                checkpoints.save(step, {"x": jnp.ones(2)}, {}, {}, score=scores[step])
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps() == [2, 4, 5, 7, 8]


def test_a_saved_step_is_not_written_again(tmp_path):
    save_steps(tmp_path, steps=(1,))
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        checkpoints.save(1, make_state(5.0), {"position": 5}, {}, wait=True)
        assert_same(checkpoints.restore(abstract(make_state(1))).state, make_state(1))


def test_leftovers_of_a_killed_save_are_no_checkpoint(tmp_path):
    save_steps(tmp_path)
    shutil.copytree(tmp_path / "2", tmp_path / "3.orbax-checkpoint-tmp")
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps() == [1, 2]
    assert (tmp_path / "3.orbax-checkpoint-tmp").exists()
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        assert checkpoints.steps() == [1, 2]
        checkpoints.save(3, make_state(3), {}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["2", "3"]


def largest(directory: Path) -> Path:
    return max((p for p in directory.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "a flipped bit": lambda d: flip(largest(d / "state")),
    "a truncated file": lambda d: largest(d / "state").write_bytes(b"12"),
    "a lost file": lambda d: largest(d / "state").unlink(),
    "a lost item": lambda d: shutil.rmtree(d / "state"),
    "another position": lambda d: (d / "data" / "metadata").write_text('{"position": 9}'),
    "garbage for meta": lambda d: (d / "meta" / "metadata").write_bytes(b"\xcd\x00"),
    "nothing left": lambda d: [shutil.rmtree(p) if p.is_dir() else p.unlink() for p in d.iterdir()],
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_broken_checkpoint_is_passed_by_and_replaced(tmp_path, log, damage):
    save_steps(tmp_path)
    damage(tmp_path / "2")
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        step, state, data, _ = checkpoints.restore(abstract(make_state(0)))
        assert (step, data) == (1, {"position": 1})
        assert_same(state, make_state(1))
        assert len(log) == 1 and "checkpoint 2 cannot be read" in log[0] and "falling back" in log[0]
        checkpoints.save(2, make_state(2), {"position": 2}, {})
        checkpoints.wait()
        assert_same(checkpoints.restore(abstract(make_state(0))).state, make_state(2))
        assert checkpoints.steps() == [1, 2]


def test_a_broken_newest_checkpoint_never_pushes_out_a_good_one(tmp_path, log):
    save_steps(tmp_path, steps=(10, 20))
    flip(largest(tmp_path / "20" / "state"))
    with Checkpoints(tmp_path, keep=1) as checkpoints:
        assert checkpoints.restore(abstract(make_state(0))).step == 10
        checkpoints.save(15, make_state(15), {"position": 15}, {}, wait=True)
        assert checkpoints.steps() == [15]
    assert len(log) == 1


def test_what_a_killed_run_had_half_deleted_is_no_checkpoint(tmp_path, log):
    save_steps(tmp_path, steps=(1, 2, 3))
    shutil.rmtree(tmp_path / "1" / "meta")
    with Checkpoints(tmp_path, read_only=True) as checkpoints:
        assert checkpoints.steps() == [2, 3]
    with Checkpoints(tmp_path, keep=2) as checkpoints:
        checkpoints.save(4, make_state(4), {}, {})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["3", "4"]
    assert log == []


def test_nothing_to_read_is_said_in_one_line(tmp_path, log):
    with pytest.raises(MissingError, match=r"no checkpoint in .*absent: train first"):
        Checkpoints(tmp_path / "absent", read_only=True)
    save_steps(tmp_path / "some")
    with Checkpoints(tmp_path / "some", read_only=True) as checkpoints:
        with pytest.raises(MissingError, match=r"no checkpoint of step 5 .*: there are \[1, 2\]"):
            checkpoints.restore(abstract(make_state(0)), 5)
        for step in (1, 2):
            flip(largest(tmp_path / "some" / str(step) / "state"))
        with pytest.raises(MissingError, match="none of the checkpoints"):
            checkpoints.restore(abstract(make_state(0)))
    assert len(log) == 2


def test_other_arrays_are_listed_with_the_likely_reason(tmp_path):
    config = {"method": {"name": "lsd"}, "network": {"name": "mlp"}, "data": {"name": "checker"}}
    save_steps(tmp_path, meta={"config": config})
    other = make_state(0)
    other.params["student"]["bias"] = jnp.zeros(4, jnp.bfloat16)
    other.params["log_variance"] = {"w": jnp.zeros(2)}
    other = other.replace(ema={})
    with (
        Checkpoints(tmp_path, read_only=True) as checkpoints,
        pytest.raises(UsageError) as error,
    ):
        checkpoints.restore(abstract(other))
    line = str(error.value)
    assert "\n" not in line
    assert "of method lsd, network mlp, data checker" in line
    assert "missing: params/log_variance/w;" in line
    assert "extra: ema/0.999/bias, ema/0.999/kernel;" in line
    assert "other shape: params/student/bias ([3], 'bfloat16') instead of ([4], 'bfloat16')" in line


def test_checksums_see_each_bit_and_no_topology():
    bits = [jnp.zeros(5).at[2].set(jnp.finfo(jnp.float32).smallest_subnormal), jnp.zeros(5), -jnp.zeros(5)]
    assert len({inventory({"x": x})["x"][2] for x in bits}) == 3
    assert inventory(make_state(1.0, 8)) == inventory(make_state(1.0, 1))
    types = (jnp.bool_, jnp.int8, jnp.uint32, jnp.bfloat16, jnp.float16)
    assert [inventory([jnp.ones(2, t)])["0"][2] for t in types] == [2, 2, 2, 2 * 0x3F80, 2 * 0x3C00]
