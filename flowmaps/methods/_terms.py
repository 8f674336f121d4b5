"""The pieces that the methods' losses are put together from."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from flowmaps import rows
from flowmaps.identities import tangent
from flowmaps.interpolants import Interpolant
from flowmaps.types import NULL_LABEL, Array, Batch, Cond, Keys, Loss, Velocity
from flowmaps.weightings import squared

Row = Float[Array, " b"]
Points = Float[Array, "b *d"]


class PathPoint(NamedTuple):
    """A point of the path between x0 and x1, and the path's velocity there."""

    x: Points
    velocity: Points


def path_point(interpolant: Interpolant, batch: Batch, t: Row) -> PathPoint:
    """x_t and dx_t/dt of each row's path."""
    ends = batch["x0"], batch["x1"], t
    return PathPoint(interpolant.point(*ends), interpolant.velocity(*ends))


def condition(batch: Batch) -> Cond:
    """The labels of a batch, where it has any."""
    return {"label": batch["label"]} if "label" in batch else {}


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
