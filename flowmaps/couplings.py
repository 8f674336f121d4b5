"""Couplings: how a source sample x0 is drawn for each data sample x1, or chosen from those that the data bring."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from flowmaps import lookup, rows
from flowmaps.errors import UsageError
from flowmaps.types import Array, Keys

Points = Float[Array, "b *d"]
Coupling = Callable[[Points, Points | None, Keys], Points]
"""(x1, rows of a second data set or None, keys) -> x0."""


def independent(*, scale: float = 1.0) -> Coupling:
    """x0 from N(0, scale^2 I) or the second data set, independent of x1."""

    def draw(x1: Points, x0: Points | None, keys: Keys) -> Points:
        return scale * rows.normal(keys, x1.shape[1:]).astype(x1.dtype) if x0 is None else x0

    return draw


def optimal_transport(*, scale: float = 1.0, group: int = 64, regularization: float = 0.0) -> Coupling:
    """Minibatch optimal transport (OT-CFM, arXiv:2302.00482; arXiv:2304.14772): draws as `independent`, and in every
    `group` consecutive rows pairs them with the data at the least sum of squared distances (ott-jax).

    regularization 0: the exact plan, a permutation. Above 0: each data row draws its partner from Sinkhorn's plan of
    this entropic regularization (in squared units of x; 2 sigma^2 for a Schroedinger bridge). x1 and its label stay
    where they are. Groups are small beside the batch so that a device pairs its own rows. Raises UsageError where the
    batch is not a multiple of the group.
    """
    draw = independent(scale=scale)

    def pair(x1: Points, x0: Points | None, keys: Keys) -> Points:
        if x1.shape[0] % group:
            raise UsageError(f"a batch of {x1.shape[0]} rows is not a multiple of coupling.group={group}")
        x0 = draw(x1, x0, rows.fold(keys, 0))
        blocks = (v.reshape(-1, group, math.prod(v.shape[1:])) for v in (x1, x0))
        chosen = jax.vmap(partial(partners, regularization=regularization))(
            *blocks, rows.fold(keys, 1).reshape(-1, group)
        )
        return jax.vmap(lambda block, index: block[index])(x0.reshape(-1, group, *x0.shape[1:]), chosen).reshape(
            x0.shape
        )

    return pair


def stored(*, scale: float = 1.0, pairs: str = "", real: bool = False) -> Coupling:
    """The x0 of stored pairs, which come from the folder `pairs` in place of the data (reflow, arXiv:2209.03003), with
    `real` each beside a random example of the data. `scale` is that of the model that made them."""

    def draw(x1: Points, x0: Points | None, keys: Keys) -> Points:
        if x0 is None:
            raise UsageError("coupling 'stored' needs stored pairs: set coupling.pairs to their folder")
        return x0

    return draw


def partners(
    x1: Float[Array, "n d"], x0: Float[Array, "n d"], keys: Keys, *, regularization: float
) -> Int[Array, " n"]:
    """For each row of x1 the row of x0 that the plan gives it."""
    from ott.geometry import pointcloud
    from ott.solvers import linear
    from ott.tools import unreg

    if regularization == 0:
        _, plan = unreg.hungarian(pointcloud.PointCloud(x1, x0))
        to, of = plan.paired_indices
        return jnp.zeros(x1.shape[0], of.dtype).at[to].set(of)
    with jax.numpy_rank_promotion("allow"):  # ott's own code promotes
        plan = linear.solve(pointcloud.PointCloud(x1, x0, epsilon=regularization)).matrix
    return jax.vmap(jax.random.categorical)(keys, jnp.log(plan))


COUPLINGS = {f.__name__: f for f in (independent, optimal_transport, stored)}


def options(name: str) -> dict[str, Any]:
    """The options of a coupling found by name."""
    lookup.check_name("coupling", name, COUPLINGS)
    return lookup.options(COUPLINGS[name])


def make(name: str, **chosen: Any) -> Coupling:
    """The coupling `name`. Raises UsageError for an unknown name or option."""
    lookup.check_name("coupling", name, COUPLINGS)
    return lookup.call(f"coupling {name}", COUPLINGS[name], {}, chosen)
