"""`--mode=sample --config.sample.pairs=N`: noise and where a trained run takes it, stored for students of its ODE.

Pair i is sample i of config.sample.seed. They are written in shards, each whole or not there, of which an interrupted
command makes the missing ones when it is given again; among several processes each writes some.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax import lax
from jaxtyping import Float

from flowmaps import evaluate, experiment, generate, sharding, solvers
from flowmaps import workdir as runs
from flowmaps.data import _pairs
from flowmaps.errors import UsageError
from flowmaps.experiment import Experiment
from flowmaps.files import write_whole
from flowmaps.types import Array, Params

Batch = Callable[[int], Float[np.ndarray, "b k *d"]]
"""Index of the first pair -> pairs [b, 1 + K, *shape]: x0, then K states of its way."""


def run(exp: Experiment, workdir: Path) -> Path:
    """Makes config.sample.pairs pairs of the last checkpoint by the largest of config.sample.steps, and returns their
    folder: workdir/pairs, or of more than one state workdir/trajectories.

    Raises UsageError where the folder holds others, or the states to keep are not among the steps; MissingError where
    there is no checkpoint.
    """
    chosen = exp.config.sample
    folder, steps = workdir / ("pairs" if chosen.points == 1 else "trajectories"), max(chosen.steps)
    check(exp, steps)
    student = next(s for s in evaluate.students(exp, workdir, (steps,)) if s.step_counts)
    decay, params = next(iter(student.averages.items()))
    begin(folder, {**origin(exp, steps), "checkpoint": student.step, "ema": decay})
    files = _pairs.shards(folder, chosen.pairs)
    left = [number for number, file in enumerate(files) if not file.is_file()]
    mine, batch = left[jax.process_index() :: jax.process_count()], batches(exp, params, steps)
    for number in left:
        first = number * _pairs.SHARD
        examples = shard(batch, first, min(_pairs.SHARD, chosen.pairs - first))
        if number in mine:
            _pairs.write_shard(files[number], examples)
        logging.info("%d of %d pairs", min(first + _pairs.SHARD, chosen.pairs), chosen.pairs)
    return folder


def check(exp: Experiment, steps: int) -> None:
    """Raises UsageError where no such pairs can be made."""
    chosen = exp.config.sample
    if chosen.start is not None or chosen.interpolations:
        raise UsageError("sample.pairs are of noise: leave out sample.start and sample.interpolations")
    if chosen.points < 1 or steps % chosen.points:
        raise UsageError(f"sample.points={chosen.points} must divide the {steps} steps that pairs are made with")


def origin(exp: Experiment, steps: int) -> dict[str, Any]:
    """What pairs are made of, and how."""
    chosen = exp.config.sample
    return {
        "config": runs.plain(exp.config),
        "data": exp.dataset.fingerprint,
        "shape": list(exp.dataset.shape),
        "num_classes": exp.dataset.num_classes,
        "num_pairs": chosen.pairs,
        "points": chosen.points,
        "seed": chosen.seed,
        "sampler": generate.description(experiment.sampler(exp)),
        "grid": [float(t) for t in generate.time_grid(exp, steps)],
    }


def begin(folder: Path, made: dict[str, Any]) -> None:
    """Writes pairs.json, or goes on beside the one that is there. Raises UsageError where that one says otherwise."""
    path = folder / "pairs.json"
    if path.is_file():
        there = json.loads(path.read_text())
        different = [name for name in made if name != "config" and there.get(name) != made[name]]
        if different:
            name = different[0]
            raise UsageError(
                f"{folder} holds other pairs, {name} {there.get(name)} and not {made[name]}: remove the folder, or "
                "make the same"
            )
    if jax.process_index() > 0:
        return
    for cut_short in folder.glob(".pairs-*"):
        cut_short.unlink()
    if not path.is_file():
        write_whole(path, json.dumps({**made, "environment": runs.environment()}, indent=2) + "\n")


def batches(exp: Experiment, params: Params, steps: int) -> Batch:
    """The compiled generation of pairs, in batches as config.eval has them (rounded up to a multiple of the
    devices)."""
    chosen, sample, grid = exp.config.sample, experiment.sampler(exp), generate.time_grid(exp, steps)
    size = -(-min(exp.config.eval.batch_size, chosen.pairs) // exp.mesh.size) * exp.mesh.size
    kept = np.linspace(0, steps, chosen.points + 1).astype(int)[1:]

    @partial(jax.jit, out_shardings=sharding.replicated(exp.mesh))
    def generated(params: Params, x0: Array | None, first: Array) -> tuple[Array, Array]:
        indices = lax.with_sharding_constraint(first + jnp.arange(size), sharding.rows(exp.mesh))
        x0, made = generate.carried(exp, sample, params, x0, chosen.seed, indices, tuple(grid))
        if len(made.path) != steps + 1:
            raise UsageError(f"sampler {generate.description(sample)} keeps no states on its way: set sample.solver")
        states = made.path[kept].at[-1].set(made.x)
        return jnp.concatenate([x0[None], states]).swapaxes(0, 1), made.nfe

    def batch(first: int) -> Float[np.ndarray, "b k *d"]:
        x0 = generate.given_source(exp, chosen.seed, first, size)
        examples, nfe = generated(params, x0, first)
        if int(nfe) == solvers.GAVE_UP:
            raise UsageError("the solver did not reach its tolerance: raise its rtol, atol or max_steps")
        return np.asarray(examples)

    return batch


def shard(batch: Batch, first: int, count: int) -> Float[np.ndarray, "n k *d"]:
    """The pairs first, ..., first + count - 1; what a last batch has beyond them is cut."""
    parts, made = [], 0
    while made < count:
        parts.append(batch(first + made))
        made += len(parts[-1])
    return np.concatenate(parts)[:count]
