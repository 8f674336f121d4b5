"""Implicit maximum likelihood (Li, Malik 2018, arXiv:1809.09087) of a generator G of one step: near to every example
there is a sample. For an example y and m draws z_1, ..., z_m,

    L = E min_j |G(z_j) - y|^2,

whose gradient flows through the nearest sample alone. With m = 1 it is a regression on random pairs, at rest at the
mean of the data; with more draws no mode can be left out. The noise that is selected has another law than noise: draws
nearer than a radius are passed over, which brings the two together (RS-IMLE, arXiv:2409.17439; there a draw near to any
example is). Consecutive rows may be compared as sets, by the two-sided Chamfer distance (MoFlow, arXiv:2503.09950).
Cost: m F to look, 3F to learn.
"""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Bool, Float, Int

from flowmaps import rows, samplers
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _generator
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles, Velocity

Sets = Float[Array, "n k *d"]
Row = Float[Array, " n"]


def chamfer(one: Sets, other: Sets, same: Bool[Array, "n k k"]) -> Row:
    """The mean over the points of both sets of the squared distance to the nearest of the other set that is the `same`,
    of the same class. Of sets of one point their squared distance."""
    differences = (one[:, :, None] - other[:, None]).reshape(*same.shape, -1)
    apart = jnp.where(same, (differences**2).sum(axis=-1), jnp.inf)
    return (apart.min(axis=2).mean(axis=1) + apart.min(axis=1).mean(axis=1)) / 2


def nearest(distances: Float[Array, "m n"], radius: float) -> Int[Array, " n"]:
    """Of each column the row of its least squared distance, those within the radius passed over, unless all are."""
    within = distances < radius**2
    return jnp.argmin(jnp.where(within & ~within.all(axis=0, keepdims=True), jnp.inf, distances), axis=0)


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    draws: int = 16,
    at_once: int = 16,
    radius: float = 0.0,
    set_size: int = 1,
) -> Method:
    """draws: m, for each row, or set. at_once: draws in memory while they are looked at. radius: nearer draws are
    passed over, unless all are. set_size: consecutive rows of a set, in which points of a label meet.

    Raises UsageError for no draws, a negative radius, or (with the first batch) sets that do not divide it.
    """
    if min(draws, at_once, set_size) < 1 or radius < 0:
        raise UsageError(
            f"method.draws={draws}, method.at_once={at_once} and method.set_size={set_size} must be at least 1, "
            f"method.radius={radius} at least 0"
        )

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        examples, cond, dropout = batch["x1"], rows.condition(batch), rows.fold(keys, 1)
        if len(examples) % set_size:
            raise UsageError(
                f"a batch of {len(examples)} rows is not made of sets of {set_size}: use a multiple of it (on every "
                "device), or another method.set_size"
            )
        wanted = examples.reshape(-1, set_size, *examples.shape[1:])
        label = cond.get("label", jnp.zeros(len(examples), jnp.int32)).reshape(-1, set_size)
        same = label[:, :, None] == label[:, None]

        def drawn(number: Int[Array, ""] | Int[Array, " b"]) -> Float[Array, "b *d"]:
            noise = rows.normal(rows.fold(rows.fold(keys, 0), number), examples.shape[1:])
            return interpolant.source_std * noise.astype(examples.dtype)

        def distance(generator: Velocity, x0: Float[Array, "b *d"]) -> Row:
            made = _generator.generated(generator, interpolant, x0, cond, dropout)
            return chamfer(made.reshape(wanted.shape), wanted, same)

        found = jax.lax.map(lambda number: distance(roles.target, drawn(number)), jnp.arange(draws), batch_size=at_once)
        chosen = jnp.repeat(nearest(stop_gradient(found), radius), set_size)
        apart = distance(roles.student, drawn(chosen))
        return Loss(apart, {"nearest": jnp.mean(apart)})

    return Method({"student": student_loss}, samplers.one_step, gaussian_source=True, diagonal=False, one_end=True)
