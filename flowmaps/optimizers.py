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
        parts = jax.tree.leaves(state, is_leaf=lambda part: isinstance(part, optax.ScaleByScheduleState))
        return next(part.count for part in parts if isinstance(part, optax.ScaleByScheduleState))


def constant(n: Array, updates: int, decay_steps: int) -> Array:
    """1."""
    return jnp.ones_like(n)


def cosine(n: Array, updates: int, decay_steps: int) -> Array:
    """From 1 to 0 in `updates` updates."""
    return (1 + jnp.cos(math.pi * jnp.clip(n / updates, 0, 1))) / 2


def rsqrt(n: Array, updates: int, decay_steps: int) -> Array:
    """1 / sqrt(max(n / decay_steps, 1)) (EDM2, arXiv:2312.02696)."""
    return 1 / jnp.sqrt(jnp.maximum(n / decay_steps, 1))


UNFIT = ("lbfgs", "noisy_sgd", "optimistic_adam", "rprop", "sm3")
"""Optimizers of optax that need more than gradients (the loss, a key), or take no schedule."""

SHAPES = {shape.__name__: shape for shape in (constant, cosine, rsqrt)}


def make_schedule(name: str, peak: float, *, updates: int, warmup_steps: int = 0, decay_steps: int = 1) -> Schedule:
    """The learning rate `constant`, `cosine` (to 0 at the last of all `updates`) or `rsqrt` (from `decay_steps` on).

    It rises linearly to `peak` over the first `warmup_steps` updates, the first of which is not zero, and takes its
    shape from there.

    Raises:
      UsageError: an unknown name, or a number of steps out of its range.
    """
    lookup.check_name("schedule", name, SHAPES)
    if warmup_steps < 0:
        raise UsageError(f"optimizer.warmup_steps={warmup_steps} must be at least 0")
    if decay_steps < 1:
        raise UsageError(f"optimizer.decay_steps={decay_steps} must be at least 1")

    def rate(n: Int[Array, ""]) -> Float[Array, ""]:
        n = n.astype(jnp.result_type(float))
        ramp = jnp.minimum((n + 1) / (warmup_steps + 1), 1)
        return peak * ramp * SHAPES[name](jnp.maximum(n - warmup_steps, 0), max(updates - warmup_steps, 1), decay_steps)

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
    **options: Any,
) -> Optimizer:
    """optax's optimizer `name` after clipping the global gradient norm to `clip_norm` (0: none).

    `updates` is the length of the run, in updates. Of `options` (b1, b2, weight_decay, ...) the optimizer gets those
    that it takes.

    Raises:
      UsageError: an unknown optimizer or schedule, with the nearest name; a value out of its range.
    """
    lookup.check_name("optimizer", name, names())
    if clip_norm < 0:
        raise UsageError(f"optimizer.clip_norm={clip_norm} must be positive, or 0 for no clipping")
    rate = make_schedule(schedule, learning_rate, updates=updates, warmup_steps=warmup_steps, decay_steps=decay_steps)
    function = getattr(optax, name)
    taken = inspect.signature(function).parameters
    optimizer = function(rate, **{option: value for option, value in options.items() if option in taken})
    clip = optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity()
    return Optimizer(*optax.chain(clip, optimizer), learning_rate=rate)
