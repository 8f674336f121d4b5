"""Optimizers from plain values: clip by the global norm, then any optimizer of optax, on a schedule."""

import inspect
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Float, Int

from flowmaps import lookup
from flowmaps.errors import UsageError
from flowmaps.types import Array

Schedule = Callable[[Int[Array, ""]], Float[Array, ""]]
"""Number of updates so far -> learning rate."""


class Optimizer(NamedTuple):
    """A GradientTransformation of optax that also tells its learning rate."""

    init: Callable
    update: Callable
    learning_rate: Schedule

    def count(self, state: Any) -> Int[Array, ""]:
        """The updates that it has made, as its state knows: what its schedule goes by."""
        return next(part.count for part in jax.tree.leaves(state, is_leaf=_is_schedule) if _is_schedule(part))

    def restart(self, params: Any, count: Int[Array, ""] | int) -> Any:
        """The state of one that knows no gradient yet and has made `count` updates, as its schedule counts."""

        def counted(part: Any) -> Any:
            return part._replace(count=jnp.full_like(part.count, count)) if _is_schedule(part) else part

        return jax.tree.map(counted, self.init(params), is_leaf=_is_schedule)


def _is_schedule(part: Any) -> bool:
    return isinstance(part, optax.ScaleByScheduleState)


def constant(n: Array, updates: Array, decay_steps: int) -> Array:
    """1."""
    return jnp.ones_like(n)


def linear(n: Array, updates: Array, decay_steps: int) -> Array:
    """From 1 to 0 in `updates` updates."""
    return 1 - jnp.clip(n / updates, 0, 1)


def cosine(n: Array, updates: Array, decay_steps: int) -> Array:
    """From 1 to 0 in `updates` updates."""
    return (1 + jnp.cos(math.pi * jnp.clip(n / updates, 0, 1))) / 2


def rsqrt(n: Array, updates: Array, decay_steps: int) -> Array:
    """1 / sqrt(max(n / decay_steps, 1)) (EDM2, arXiv:2312.02696)."""
    return 1 / jnp.sqrt(jnp.maximum(n / decay_steps, 1))


UNFIT = ("lbfgs", "noisy_sgd", "optimistic_adam", "rprop", "sm3")
"""Optimizers of optax that need more than gradients (the loss, a key), or take no schedule."""

SHAPES = {shape.__name__: shape for shape in (constant, linear, cosine, rsqrt)}


def make_schedule(
    name: str,
    peak: float,
    *,
    updates: int,
    warmup_steps: int = 0,
    decay_steps: int = 1,
    starts: tuple[int, ...] = (0,),
) -> Schedule:
    """The learning rate `constant`, `linear` or `cosine` (to 0 at the last of all `updates`) or `rsqrt` (from
    `decay_steps` on).

    It rises linearly to `peak` over the first `warmup_steps` updates, the first of which is not zero, and takes its
    shape from there; and so anew after each of the numbers of updates in `starts`.

    Raises:
      UsageError: an unknown name, or a number of steps out of its range.
    """
    lookup.check_name("schedule", name, SHAPES)
    if warmup_steps < 0:
        raise UsageError(f"optimizer.warmup_steps={warmup_steps} must be at least 0")
    if decay_steps < 1:
        raise UsageError(f"optimizer.decay_steps={decay_steps} must be at least 1")

    def rate(n: Int[Array, ""]) -> Float[Array, ""]:
        part = jnp.searchsorted(jnp.asarray(starts), n, side="right") - 1
        length = jnp.diff(jnp.asarray((*starts, updates)))[part]
        n = (n - jnp.asarray(starts)[part]).astype(jnp.result_type(float))
        ramp = jnp.minimum((n + 1) / (warmup_steps + 1), 1)
        shape = SHAPES[name](jnp.maximum(n - warmup_steps, 0), jnp.maximum(length - warmup_steps, 1), decay_steps)
        return peak * ramp * shape

    return rate


def names() -> tuple[str, ...]:
    """The optimizers of optax: its public functions whose first argument is a learning rate, or a schedule of it."""
    functions = inspect.getmembers(optax, inspect.isfunction)
    return tuple(
        name
        for name, function in functions
        if next(iter(inspect.signature(function).parameters), "") == "learning_rate"
        and not name.startswith(("_", "scale_by"))
        and name not in UNFIT
    )


def make(
    name: str,
    *,
    learning_rate: float,
    schedule: str = "constant",
    updates: int,
    warmup_steps: int = 0,
    decay_steps: int = 1,
    clip_norm: float = 0.0,
    starts: tuple[int, ...] = (0,),
    **options: Any,
) -> Optimizer:
    """optax's optimizer `name` after clipping the global gradient norm to `clip_norm` (0: none).

    `updates` is the length of the run, in updates, and `starts` are those after which its schedule starts anew. Of
    `options` (b1, b2, weight_decay, ...) the optimizer gets those that it takes.

    Raises:
      UsageError: an unknown optimizer or schedule, with the nearest name; a value out of its range.
    """
    lookup.check_name("optimizer", name, names())
    if clip_norm < 0:
        raise UsageError(f"optimizer.clip_norm={clip_norm} must be positive, or 0 for no clipping")
    steps = {"updates": updates, "warmup_steps": warmup_steps, "decay_steps": decay_steps, "starts": starts}
    rate = make_schedule(schedule, learning_rate, **steps)
    function = getattr(optax, name)
    taken = inspect.signature(function).parameters
    optimizer = function(rate, **{option: value for option, value in options.items() if option in taken})
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    return Optimizer(*optax.chain(clip, optimizer), learning_rate=rate)
