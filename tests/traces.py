"""What a run of tests/tiny.py leaves in its workdir, read back."""

from pathlib import Path

import jax
import numpy as np
import tiny
from ml_collections import ConfigDict

from flowmaps import experiment
from flowmaps.checkpoints import Checkpoints


def finished(workdir: Path) -> list[int]:
    return sorted(int(p.name) for p in (workdir / "checkpoints").glob("*") if p.name.isdigit())


def saved(workdir: Path, step: int | None = None, config: ConfigDict | None = None) -> tuple[int, object, dict]:
    """Step, state and the loader's position of a checkpoint, verified against its checksums."""
    config = tiny.get_config() if config is None else config
    config.mesh.data = 1
    with Checkpoints(workdir / "checkpoints", read_only=True) as checkpoints:
        step, state, data, _ = checkpoints.restore(experiment.abstract_state(experiment.build(config)), step)
    return step, jax.device_get(state), data


def assert_same(a, b, **tolerance) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, **{"rtol": 0, **tolerance}), a, b)


def reached(workdir: Path) -> int:
    """The last step that a run wrote down."""
    lines = (workdir / "metrics.jsonl").read_text().splitlines() if (workdir / "metrics.jsonl").exists() else []
    return max((int(line.split(",")[0].removeprefix('{"step": ')) for line in lines if line.endswith("}")), default=0)
