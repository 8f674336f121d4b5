"""Runs small enough to be made afresh in a test: a network of a few weights, saved without training."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp

from configs import base
from flowmaps import experiment, trained, workdir
from flowmaps import pairs as stored
from flowmaps.checkpoints import Checkpoints


def plane(method="lsd", **fields):
    """A config of the checkerboard, whose `fields` (dots as __) are set."""
    config = base.checker(method)
    return _set(config, {"eval__num_samples": 400, "eval__batch_size": 160, "eval__metrics": ("sliced_w2",)} | fields)


def digits(**fields):
    """A config of the digits."""
    config = base.digits("lsd")
    config.network = base.part(base.networks, "mlp", width=8, depth=2)
    config.eval.metrics = ("fd_digits",)
    return _set(config, {"eval__num_samples": 64, "eval__batch_size": 64} | fields)


def _set(config, fields):
    small = {"train__steps": 10, "eval__steps": (1, 3), "sample__steps": (1, 3), "sample__num_samples": 24}
    if config.network.name == "mlp":
        small |= {"network__width": 8, "network__depth": 2}
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in {**small, **fields}.items()})
    return config


def pairs(workdir: Path, count: int, points: int = 1) -> str:
    """The folder of so many pairs, or trajectories, of the run in a workdir."""
    config = trained.read(Path(workdir), "workdir")
    config.sample.update(pairs=count, points=points, steps=(2 * points,))
    return str(stored.run(experiment.build(config, training=False), Path(workdir)))


def zeros(exp):
    """Parameters of the student with which its velocity is exactly zero."""
    return jax.tree.map(lambda p: jnp.zeros(p.shape, p.dtype), experiment.abstract_state(exp).params["student"])


def save(config, directory: Path, *, steps=(10,), scores=(None,)):
    """What training would leave in its workdir, with a state of fresh weights at each of `steps`."""
    exp = experiment.build(config)
    workdir.begin(config, directory)
    with Checkpoints(directory / "checkpoints", keep=len(steps)) as checkpoints:
        for step, score in zip(steps, scores, strict=True):
            state = experiment.init(exp)
            checkpoints.save(step, state, {"position": step}, {}, score=score, wait=True)
    records = [{"step": step, "loss": 1 / step, "flow": 1.5, "grad_norm": None} for step in range(1, 11)]
    (directory / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return exp
