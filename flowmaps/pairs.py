"""`--mode=sample --config.sample.pairs=N`: noise and where a trained run takes it, stored for students of its ODE.

Pair i comes from the key fold_in(key(config.sample.seed), i), in a stream of its own: no sample that is drawn or
measured starts from a pair's noise. They are written in shards, each whole or not there, of which an interrupted
command makes the missing ones when it is given again. Processes, which must share the workdir, make them together and
write by turns.
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
from jax.experimental import multihost_utils
from jaxtyping import Float

from flowmaps import evaluate, generate, pair_files, rows, samplers, sharding, solvers
from flowmaps import workdir as runs
from flowmaps.errors import MissingError, UsageError
from flowmaps.experiment import Experiment
from flowmaps.files import write_whole
from flowmaps.types import Array, Keys, Params

Batch = Callable[[int], Float[np.ndarray, "b k *d"]]
"""Index of the first pair -> pairs [b, 1 + K, *shape]: x0, then K states of its way."""
STREAM = 2
"""Of the pairs' noise; a sample's own takes 0 and 1."""


def run(exp: Experiment, workdir: Path) -> Path:
    """Makes config.sample.pairs pairs of the last checkpoint by the largest of config.sample.steps, and returns their
    folder: workdir/pairs, or of more than one state workdir/trajectories.

    Raises UsageError where no such pairs can be made, or the folder holds others; MissingError where there is no
    checkpoint.
    """
    chosen = exp.config.sample
    folder, steps = workdir / ("pairs" if chosen.points == 1 else "trajectories"), max(chosen.steps)
    check(exp, steps)
    student = next((s for s in evaluate.students(exp, workdir, (steps,)) if s.step_counts), None)
    if student is None:
        raise MissingError(f"{workdir} has not trained its student of {steps} steps yet")
    decay, params = next(iter(student.averages.items()))
    begin(folder, {**origin(exp, steps), "checkpoint": student.step, "ema": decay})
    files, batch = pair_files.files(folder, chosen.pairs, pair_files.SIZE), batches(exp, params, steps)
    left = missing(files)
    for turn, number in enumerate(left):
        first = number * pair_files.SIZE
        examples = shard(batch, first, min(pair_files.SIZE, chosen.pairs - first))
        if turn % jax.process_count() == jax.process_index():
            pair_files.write(files[number], examples)
        logging.info("%d of %d pairs", min(first + pair_files.SIZE, chosen.pairs), chosen.pairs)
        if lost := np.sum(~np.isfinite(examples.reshape(len(examples), -1)).all(axis=1)):
            logging.warning("%d of these pairs are not finite: updates that meet them are skipped", lost)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices("pairs are written")
    return folder


def check(exp: Experiment, steps: int) -> None:
    """Raises UsageError where no such pairs can be made."""
    chosen, path = exp.config.sample, exp.interpolant
    sampler, grid = generate.make_sampler(exp), generate.time_grid(exp, steps)
    if chosen.start is not None or chosen.interpolations or exp.dataset.source is not None:
        raise UsageError("sample.pairs are of noise: leave out sample.start, sample.interpolations and data.source")
    if samplers.draws(sampler):
        raise UsageError(
            f"{generate.description(sampler)} adds noise, and a pair tells where noise goes: set sample.solver or "
            "sample.sampler to one that adds none"
        )
    if chosen.points < 1 or steps % chosen.points:
        raise UsageError(f"sample.points={chosen.points} must divide the {steps} steps that pairs are made with")
    if chosen.points > 1 and not np.allclose(grid, np.linspace(path.t_min, path.t_max, steps + 1), atol=1e-6):
        raise UsageError(f"sample.points={chosen.points} are states at equal times: set sample.grid to 'uniform'")


def origin(exp: Experiment, steps: int) -> dict[str, Any]:
    """What pairs are made of, and how."""
    chosen = exp.config.sample
    return {
        "config": runs.plain(exp.config),
        "data": exp.dataset.fingerprint,
        "shape": list(exp.dataset.shape),
        "num_classes": exp.dataset.num_classes,
        "num_pairs": chosen.pairs,
        "shard": pair_files.SIZE,
        "points": chosen.points,
        "seed": chosen.seed,
        "sampler": generate.description(generate.make_sampler(exp)),
        "grid": [float(t) for t in generate.time_grid(exp, steps)],
        **generate.guidance(exp),
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


def missing(files: list[Path]) -> list[int]:
    """The numbers of the files that are not there, as the first process sees it: all must make the same."""
    there = np.array([file.is_file() for file in files])
    if jax.process_count() > 1:
        there = multihost_utils.broadcast_one_to_all(there)
    return [number for number, found in enumerate(there) if not found]


def pair_keys(seed: int, indices: Array | np.ndarray) -> Keys:
    """The keys of the pairs with these indices."""
    return rows.fold(generate.sample_keys(seed, indices), STREAM)


def batches(exp: Experiment, params: Params, steps: int) -> Batch:
    """The compiled generation of pairs, at most a shard at a time (rounded up to a multiple of the devices)."""
    chosen, sample, grid = exp.config.sample, generate.make_sampler(exp), generate.time_grid(exp, steps)
    size = -(-min(exp.config.eval.batch_size, chosen.pairs, pair_files.SIZE) // exp.mesh.size) * exp.mesh.size
    kept = np.linspace(0, steps, chosen.points + 1).astype(int)[1:]

    @partial(jax.jit, out_shardings=sharding.replicated(exp.mesh))
    def generated(params: Params, first: Array) -> tuple[Array, Array]:
        indices = lax.with_sharding_constraint(first + jnp.arange(size), sharding.rows(exp.mesh))
        x0, made = generate.carried(exp, sample, params, None, pair_keys(chosen.seed, indices), indices, tuple(grid))
        if chosen.points > 1 and len(made.path) != steps + 1:
            raise UsageError(f"sampler {generate.description(sample)} keeps no states on its way: set sample.solver")
        states = made.path[kept].at[-1].set(made.x) if chosen.points > 1 else made.x[None]
        return jnp.concatenate([x0[None], states]).swapaxes(0, 1), made.nfe

    def batch(first: int) -> Float[np.ndarray, "b k *d"]:
        examples, nfe = generated(params, first)
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
