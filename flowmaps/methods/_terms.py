"""The pieces that the methods' losses are put together from."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Bool, Float

from flowmaps import rows, weightings
from flowmaps.errors import UsageError
from flowmaps.guidance import without_labels
from flowmaps.identities import tangent
from flowmaps.interpolants import Interpolant
from flowmaps.solvers import steps
from flowmaps.types import NULL_LABEL, Array, Batch, Cond, Guided, Keys, Loss, Roles, Velocity
from flowmaps.weightings import squared

Row = Float[Array, " b"]
Points = Float[Array, "b *d"]
Distance = Literal["squared", "l1", "pseudo_huber", "perceptual"]
"""Between data estimates, see `far`."""


class PathPoint(NamedTuple):
    """A point of the path between x0 and x1, and the path's velocity there."""

    x: Points
    velocity: Points


def path_point(interpolant: Interpolant, batch: Batch, t: Row) -> PathPoint:
    """x_t and dx_t/dt of each row's path."""
    ends = batch["x0"], batch["x1"], t
    return PathPoint(interpolant.point(*ends), interpolant.velocity(*ends))


def teacher(roles: Roles) -> Velocity:
    """The teacher, always without dropout: with it, it would be another model a row. Raises UsageError where the run
    has none."""
    if roles.teacher is None:
        raise UsageError(
            "the method's options ask for a teacher, and there is none: set teacher.workdir to a trained run"
        )

    def velocity(x: Points, s: Row, t: Row, cond: Cond, *, dropout: Keys | None = None) -> Points:
        return roles.teacher(x, s, t, cond)

    return velocity


def velocity_of(source: Literal["path", "teacher"], roles: Roles, point: PathPoint, t: Row, cond: Cond) -> Points:
    """The path's own velocity, conditional on its ends, or the teacher's marginal one."""
    return point.velocity if source == "path" else teacher(roles)(point.x, t, t, cond)


def teacher_step(
    leg: Literal["ddim", "heun"], roles: Roles, interpolant: Interpolant, x: Points, s: Row, u: Row, cond: Cond
) -> Points:
    """x_u by one step of the teacher's flow from x_s, see solvers/steps.py; stopped."""
    return stop_gradient(steps.STEPS[leg](teacher(roles), interpolant, x, s, u, cond))


def features(roles: Roles) -> Callable[[Points], tuple[Array, ...]]:
    """All the maps of the frozen network that sees images. Raises UsageError where the run has none."""
    if "features" not in roles.extras:
        raise UsageError(
            "the method's options compare images by their features, and there is no network of them: set "
            "config.players.features"
        )
    return roles.extras["features"].heads


def far(roles: Roles, one: Points, other: Points, distance: Distance, huber: float) -> Row:
    """How far apart two data estimates are: by weightings.distance, or, of images, by weightings.perceptual on the maps
    of the frozen role "features"."""
    if distance == "perceptual":
        return weightings.perceptual(features(roles), one, other)
    return weightings.distance(one - other, distance, huber)


def features_owner(wanted: bool) -> dict[str, str]:
    """The owner of the role "features", where a loss wants it."""
    return {"features": "frozen"} if wanted else {}


def check_unit_interval(name: str, interpolant: Interpolant) -> None:
    """Raises UsageError for a path on other times than [0, 1]."""
    if (interpolant.t_min, interpolant.t_max) != (0.0, 1.0):
        raise UsageError(f"{name} needs times on [0, 1], not [{interpolant.t_min}, {interpolant.t_max}]")


def warmup(steps: int, total_steps: int) -> Callable[[Array], Array]:
    """The share of a term that is warmed up, step / steps and then 1; 1 throughout for 0 steps.

    Raises UsageError where training would end before it is whole.
    """
    if steps >= total_steps:
        raise UsageError(
            f"method.warmup_steps={steps} must be fewer than train.steps={total_steps}, before which nothing is whole"
        )
    return lambda step: jnp.minimum(1.0, step / steps) if steps else jnp.ones(())


def guidance_input(scales: tuple[float, float], *, intervals: bool) -> Guided | None:
    """What a network learns that is asked for scales between two, and for their intervals too; None for (1, 1).

    Raises UsageError for scales that do not rise from above 0.
    """
    low, high = scales
    if (low, high) == (1.0, 1.0):
        return None
    if not 0 < low <= high:
        raise UsageError(f"method.guidance={scales} must be two rising scales above 0")
    return Guided(low, high, intervals)


def trained_guidance(scales: tuple[float, float], label_dropout: float, *, intervals: bool) -> Guided | None:
    """`guidance_input` of a network that is guided by what it says itself without a label.

    Raises UsageError as that does, or without rows that have no label.
    """
    learned = guidance_input(scales, intervals=intervals)
    if learned is not None and label_dropout == 0:
        raise UsageError(f"method.guidance={scales} needs method.label_dropout above 0, for example 0.1")
    return learned


def drawn_scale(learned: Guided, keys: Keys) -> Row:
    """A scale for each row, uniform among those that are learned."""
    return learned.low + (learned.high - learned.low) * rows.uniform(keys)


def ask_guidance(cond: Cond, learned: Guided | None, keys: Keys) -> Cond:
    """The condition in which student and teacher are asked for a drawn scale; as it is where none is learned."""
    return cond if learned is None else {**cond, "guidance": drawn_scale(learned, keys)}


def unlabelled(cond: Cond) -> Bool[Array, " b"]:
    """Which rows have no label. Raises UsageError for data without labels."""
    return without_labels(cond)["label"] == cond["label"]


def drop_labels(cond: Cond, keys: Keys, rate: float) -> Cond:
    """Takes each row's label away with probability `rate`, so that one network learns both laws."""
    if "label" not in cond or rate == 0:
        return cond
    return {**cond, "label": jnp.where(rows.uniform(keys) < rate, NULL_LABEL, cond["label"])}


def flow_residual(
    student: Velocity, interpolant: Interpolant, batch: Batch, t: Row, cond: Cond, dropout: Keys
) -> Points:
    """Flow matching's residual v_{t,t}(x_t) - dx_t/dt."""
    x, velocity = path_point(interpolant, batch, t)
    return tangent(student, x, t, velocity, cond, dropout)


def denoising_errors(interpolant: Interpolant, batch: Batch, x: Points, velocity: Points, t: Row) -> tuple[Row, Row]:
    """|E[x1 | x_t] - x1|^2, and |E[x0 | x_t] - x0|^2 / source_std^2, as a model of b_t(x) has them."""
    ends = interpolant.ends_from_velocity(x, velocity, t)
    return squared(ends.data - batch["x1"]), squared(ends.noise - batch["x0"]) / interpolant.source_std**2


def combine(terms: Mapping[str, Array], shares: Sequence[float], weights: Sequence[float]) -> Float[Array, " n"]:
    """One value a row of the whole batch, whose mean is the sum of weight * mean over the terms."""
    scaled = [w / share * term for term, share, w in zip(terms.values(), shares, weights, strict=True)]
    return rows.join(scaled, shares)


def loss(
    terms: Mapping[str, Array],
    shares: Sequence[float],
    weights: Sequence[float],
    raw: Mapping[str, Array] | None = None,
) -> Loss:
    """The combined terms, with the mean of each raw (unweighted) one as a metric."""
    metrics = {name: jnp.mean(term) for name, term in (terms if raw is None else raw).items()}
    return Loss(combine(terms, shares, weights), metrics)
