"""Checkpoints of a run: written in the background, verified when read. The only file that knows orbax.

A checkpoint is a folder DIRECTORY/STEP of three items: `state` (the arrays), `data` (the loader's position) and
`meta` (what made it, and the shape, type and checksum of every array). It takes its final name only once it is
whole, so a program that is killed never leaves half a checkpoint under a finished one's name.
"""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from absl import logging

from flowmaps.errors import MissingError, UsageError

FORMAT_VERSION = 1


class Restored(NamedTuple):
    """What a checkpoint holds."""

    step: int
    state: Any
    data: dict[str, Any]
    meta: dict[str, Any]


class Checkpoints:
    """The checkpoints of one folder; every process of a run makes one and calls its methods alike.

    Kept are the newest `keep`, the `keep_best` of lowest score, every multiple of `keep_period` (0: none), and those of
    the steps `keep_steps`.
    With `read_only` nothing is written, cleaned or deleted: for evaluating a run that still goes on.
    Raises MissingError where a folder to be read does not exist.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        keep: int = 1,
        keep_best: int = 0,
        keep_period: int = 0,
        keep_steps: Collection[int] = (),
        read_only: bool = False,
    ):
        import orbax.checkpoint as ocp

        self._directory = Path(directory).resolve()
        if read_only and not self._directory.is_dir():
            raise _missing(self._directory)
        self._keep, self._keep_best, self._keep_period, self._keep_steps = keep, keep_best, keep_period, keep_steps
        options = ocp.CheckpointManagerOptions(
            save_interval_steps=0 if read_only else 1,
            create=not read_only,
            read_only=read_only,
            cleanup_tmp_directories=not read_only,
            preservation_policy=SimpleNamespace(should_preserve=self._preserve),
        )
        self._manager = ocp.CheckpointManager(self._directory, options=options)
        self._unreadable: set[int] = set()
        self._scores: dict[int, float | None] = {}
        for step in sorted(self._manager.all_steps(), reverse=True):
            self._look_at(step)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def steps(self) -> list[int]:
        """The steps that have a finished checkpoint, in order; none that was found broken is among them."""
        return sorted(set(self._manager.all_steps()) - self._unreadable)

    def save(
        self,
        step: int,
        state: Any,
        data: Mapping[str, Any],
        meta: Mapping[str, Any],
        *,
        score: float | None = None,
        wait: bool = False,
    ) -> None:
        """Copies the state to the host and lets threads write it; with `wait`, returns once it is on disk.

        A step that has a checkpoint keeps it, unless that one could not be read. `score`: lower is better.
        """
        import orbax.checkpoint as ocp

        if step in self._unreadable:
            self._manager.delete(step)
            self._unreadable.remove(step)
        if step not in self.steps():
            self._scores[step] = score
            own = {"format_version": FORMAT_VERSION, "score": score, "data": data, "arrays": inventory(state)}
            args = ocp.args.Composite(
                state=ocp.args.PyTreeSave(state),
                data=ocp.args.JsonSave(dict(data)),
                meta=ocp.args.JsonSave({**meta, **own}),
            )
            self._manager.save(step, args=args, force=True)
        if wait:
            self.wait()

    def restore(self, abstract: Any, step: int | None = None, *, partial: bool = False) -> Restored:
        """The checkpoint of `step`, or else the newest that can be read; one line in the log for each that cannot.

        `abstract` is the state with a jax.ShapeDtypeStruct and its sharding at every leaf. With `partial` it is a
        part of the state, for example {"ema": {"0.999": ...}}, and only that part is read.

        Raises:
          MissingError: there is no such checkpoint, or none that can be read.
          UsageError: the checkpoint is of other arrays; the line says which are missing, extra or of another shape.
        """
        for candidate in self._candidates(step):
            try:
                return self._read(candidate, abstract, partial)
            except UsageError:
                raise
            except Exception as error:  # a broken file shows as any of a dozen types
                self._pass_by(candidate, error)
        raise MissingError(
            f"none of the checkpoints in {self._directory} can be read: start again with another --workdir"
        )

    def meta(self, step: int) -> dict[str, Any]:
        """What `save` was given as `meta` at a step, with `format_version`, `score`, `data` and `arrays`."""
        import orbax.checkpoint as ocp

        return self._manager.restore(step, args=ocp.args.Composite(meta=ocp.args.JsonRestore()))["meta"]

    def reached_preemption(self, step: int) -> bool:
        """Among several processes: whether all of them stop at this step, because one was told to terminate."""
        return self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Returns once all that was saved is on disk."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Waits for what is being written and ends the threads."""
        self._manager.close()

    def _candidates(self, step: int | None) -> list[int]:
        steps = self.steps()
        if not steps:
            raise _missing(self._directory)
        if step is not None and step not in steps:
            raise MissingError(f"no checkpoint of step {step} in {self._directory}: there are {steps}")
        return steps[::-1] if step is None else [step]

    def _read(self, step: int, abstract: Any, partial: bool) -> Restored:
        import orbax.checkpoint as ocp

        meta = self.meta(step)
        _check_fits(abstract, meta, f"checkpoint {step} in {self._directory}{_origin(meta)}", partial)
        args = ocp.args.PyTreeRestore(
            abstract,
            restore_args=ocp.checkpoint_utils.construct_restore_args(abstract),
            partial_restore=partial,
        )
        items = self._manager.restore(step, args=ocp.args.Composite(state=args, data=ocp.args.JsonRestore()))
        _check_intact(items["state"], items["data"], meta)
        return Restored(step, items["state"], items["data"], meta)

    def _look_at(self, step: int) -> None:
        """Notes the score of a checkpoint. One that does not even say what it is was half deleted when a run was
        killed, or is broken: that is worth a line where it would have been the newest."""
        try:
            self._scores[step] = self.meta(step)["score"]
        except Exception as error:  # a broken file shows as any of a dozen types
            if self._scores:
                self._unreadable.add(step)
            else:
                self._pass_by(step, error)

    def _pass_by(self, step: int, error: Exception) -> None:
        self._unreadable.add(step)
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        logging.error("checkpoint %d cannot be read, falling back to the one before: %s", step, reason)

    def _preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        del context
        steps = sorted({c.step for c in checkpoints} - self._unreadable)
        ranked = sorted((s for s in steps if self._scores.get(s) is not None), key=self._scores.get)
        kept = {*steps[-self._keep :], *ranked[: self._keep_best], *self._keep_steps}
        if self._keep_period:
            kept |= {s for s in steps if s % self._keep_period == 0}
        return [c.step in kept for c in checkpoints]


def inventory(tree: Any) -> dict[str, list]:
    """Path of each array -> [shape, type, checksum]; the checksum does not depend on how the array is cut."""
    leaves = _named(tree)
    sums = jax.device_get(_checksums(tuple(leaves.values())))
    return {name: [*_kind(leaf), int(total)] for (name, leaf), total in zip(leaves.items(), sums, strict=True)}


@jax.jit
def _checksums(leaves: tuple[jax.Array, ...]) -> list[jax.Array]:
    return [_checksum(leaf) for leaf in leaves]


def _checksum(leaf: jax.Array) -> jax.Array:
    """The sum of the array's words modulo 2^32: one that changes with any single flipped bit."""
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    word = {1: jnp.uint8, 2: jnp.uint16}.get(leaf.dtype.itemsize, jnp.uint32)
    return jnp.sum(jax.lax.bitcast_convert_type(leaf, word), dtype=jnp.uint32)


def _named(tree: Any) -> dict[str, Any]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def _kind(leaf: Any) -> tuple[list[int], str]:
    return list(leaf.shape), str(leaf.dtype)


def _check_fits(abstract: Any, meta: Mapping[str, Any], what: str, partial: bool) -> None:
    if meta["format_version"] != FORMAT_VERSION:
        raise UsageError(f"{what} has format {meta['format_version']}; this version reads {FORMAT_VERSION}")
    wanted = {name: _kind(leaf) for name, leaf in _named(abstract).items()}
    saved = {name: (shape, dtype) for name, (shape, dtype, _) in meta["arrays"].items()}
    differences = {
        "missing": [name for name in wanted if name not in saved],
        "extra": [] if partial else [name for name in saved if name not in wanted],
        "other shape": [
            f"{name} {saved[name]} instead of {kind}"
            for name, kind in wanted.items()
            if name in saved and saved[name] != kind
        ],
    }
    if any(differences.values()):
        raise UsageError(f"{what} does not fit this config: {'; '.join(_summaries(differences))}")


def _origin(meta: Mapping[str, Any]) -> str:
    config = meta.get("config", {})
    parts = [f"{part} {config[part]['name']}" for part in ("method", "network", "data") if part in config]
    return f" (of {', '.join(parts)})" if parts else ""


def _summaries(differences: Mapping[str, Sequence[str]], shown: int = 3) -> list[str]:
    return [
        f"{kind}: {', '.join(names[:shown])}" + (f" and {len(names) - shown} more" if len(names) > shown else "")
        for kind, names in differences.items()
        if names
    ]


def _check_intact(state: Any, data: Mapping[str, Any], meta: Mapping[str, Any]) -> None:
    """Raises ValueError where what was read is not what was saved."""
    changed = [name for name, kind in inventory(state).items() if kind != meta["arrays"][name]]
    if changed or data != meta["data"]:
        raise ValueError(f"checksum differs: {', '.join(changed[:3]) or 'data'}")


def _missing(directory: Path) -> MissingError:
    return MissingError(f"no checkpoint in {directory}: train first (--mode=train) or give another --workdir")
