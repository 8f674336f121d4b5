"""Drifting (arXiv:2602.04770): a generator of one step whose samples x_i drift to the examples y_j and away from each
other. Of the points p that are seen, examples and the other samples, each attracts or repels by how near it is,

    a_ip = sqrt( softmax_p(-|x_i - p| / (S R)) softmax_i(-|x_i - p| / (S R)) ),
    V_i = sum over p that attract, q that repel of a_ip a_iq (p - q),

S the mean distance and R a temperature. To exchange who attracts and who repels turns V around, so it is zero where
both are the same points. The loss follows the field, V the sum over temperatures of V_R / rms(V_R),

    L = |x_i - sg(x_i + V_i)|^2 / (2 d)    in units of S / sqrt(d), d numbers a row.

Samples see their own class. With guidance w the examples of all classes repel them too, together with w - 1 times the
weight of the other samples, so that a class rests at w (its data) - (w - 1) (all data). Cost: 3F a row.
"""

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Float, Int

from flowmaps import rows, samplers
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _generator
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles

Samples = Float[Array, "n d"]
Pairs = Float[Array, "n p"]

LEAST = 1e-6
"""Of the two softmaxes' product under the root, as in the released code: far points keep a hold on the samples. And of
the root mean square that a field is divided by."""


def distances(x: Samples, points: Float[Array, "p d"]) -> Pairs:
    """|x_i - p|."""
    return jnp.sqrt(jnp.sum((x[:, None] - points[None]) ** 2, axis=-1))


def drift(apart: Pairs, points: Float[Array, "p d"], weights: Pairs, temperature: float | Float[Array, ""]) -> Samples:
    """V of the samples that are `apart` from the points, at a temperature in units of distance. Weights above 0: of
    points that attract, below 0: that repel, 0: that are not seen."""
    seen, logits = weights != 0, -apart / temperature
    product = jax.nn.softmax(logits, axis=1, where=seen) * jax.nn.softmax(logits, axis=0, where=seen)
    affinity = weights * jnp.sqrt(jnp.maximum(product, LEAST))
    to, away = jnp.maximum(affinity, 0), jnp.maximum(-affinity, 0)
    return away.sum(axis=1, keepdims=True) * (to @ points) - to.sum(axis=1, keepdims=True) * (away @ points)


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    group: int = 64,
    temperatures: tuple[float, ...] = (0.02, 0.05, 0.2),
    guidance: float = 1.0,
) -> Method:
    """group: consecutive rows whose samples and examples see each other. temperatures: R. guidance: w; 1: none.

    Raises UsageError for a group of one, no temperature above 0, a guidance below 1, or (with the first batch) a group
    that does not divide it, or guidance without labels.
    """
    if group < 2 or guidance < 1 or not temperatures or min(temperatures) <= 0:
        raise UsageError(
            f"method.group={group} must be at least 2, method.temperatures={temperatures} above 0 and "
            f"method.guidance={guidance} at least 1, where there is none"
        )

    def field(x: Samples, y: Samples, label: Int[Array, " n"]) -> tuple[Samples, Float[Array, ""], Float[Array, ""]]:
        """V of a group's samples in units of S / sqrt(d), S, and the mean over temperatures of rms(V_R) / S."""
        same = (label[:, None] == label[None]).astype(x.dtype)
        others = same - jnp.eye(len(x), dtype=x.dtype)
        foreign = (guidance - 1) * jnp.broadcast_to(others.mean(axis=1, keepdims=True), same.shape)
        points, weights = jnp.concatenate([y, x, y]), jnp.concatenate([same, -others, -foreign], axis=1)
        apart = distances(x, points)
        unit = jnp.average(apart, weights=jnp.abs(weights))
        fields = [drift(apart, points, weights, unit * temperature) for temperature in temperatures]
        sizes = [jnp.sqrt(jnp.mean(v**2)) for v in fields]
        total = sum(v / jnp.maximum(size, LEAST) for v, size in zip(fields, sizes, strict=True))
        return total, unit, jnp.mean(jnp.stack(sizes)) / unit

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond, count = rows.condition(batch), len(batch["x1"])
        if count % group:
            raise UsageError(
                f"a batch of {count} rows is not made of groups of {group}: use a multiple of it (on every device), or "
                "another method.group"
            )
        if guidance > 1 and "label" not in cond:
            raise UsageError(f"method.guidance={guidance} needs labels, and these data have none: leave it out")
        made = _generator.generated(roles.student, interpolant, batch["x0"], cond, rows.fold(keys, 0))
        x, y = (points.reshape(-1, group, points[0].size) for points in (made, batch["x1"]))
        label = cond.get("label", jnp.zeros(count, jnp.int32)).reshape(-1, group)
        v, unit, size = stop_gradient(jax.vmap(field)(x, y, label))
        scaled = x * (x.shape[-1] ** 0.5 / unit)[:, None, None]
        loss = _generator.with_gradient(scaled.reshape(count, -1), -v.reshape(count, -1))
        return Loss(loss, {"drift": jnp.mean(size)})

    return Method({"student": student_loss}, samplers.one_step, diagonal=False, one_end=True)
