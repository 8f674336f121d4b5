"""From residuals [B, ...] to losses [B]."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Float

from flowmaps.errors import UsageError
from flowmaps.rows import expand, flat_mean, flat_sum
from flowmaps.types import Array, LastLayer, Roles

Row = Float[Array, "*b"]
Points = Float[Array, "b *d"]


def squared(residual: Float[Array, "b *d"]) -> Row:
    """|r|^2, summed over a row's dimensions, never below float32."""
    return flat_sum(jnp.square(residual.astype(jnp.promote_types(residual.dtype, jnp.float32))))


def adaptive(squares: Row, power: float, constant: float) -> Row:
    """|r|^2 / sg(|r|^2 + c)^p (MeanFlow, arXiv:2505.13447, eq. 22). p = 0: squared; p = 1/2: pseudo-Huber's gradient.

    The weight depends on the row's own residual, so with a conditional target the rest point is the conditional mean
    only where the residual's law is symmetric. On the skewed mixture of tests/test_closed_form.py, whose velocities
    spread by about 0.3, MeanFlow's constant error is 0.028 with p = 1 and 0.016 with p = 1/2 (c = 0.01, uniform times).
    """
    return squares / stop_gradient(squares + constant) ** power


def pseudo_huber(squares: Row, constant: float) -> Row:
    """sqrt(|r|^2 + c^2) - c (iCT, arXiv:2310.14189, eq. 7). Biased under a conditional target, as `adaptive` is."""
    return jnp.sqrt(squares + constant**2) - constant


def log_variance(squares: Row, weight: Row) -> Row:
    """exp(-w) |r|^2 + w with a learned w (EDM2, arXiv:2312.02696, eq. 21; arXiv:2505.18825, eq. 19)."""
    return jnp.exp(-weight) * squares + weight


class Balanced(NamedTuple):
    """Two terms of a loss, and the weight of the second that makes their gradients equally long."""

    one: Row
    other: Row
    ratio: Float[Array, ""]
    beside: Any


def balanced(terms: Callable[[Roles], tuple[tuple[Row, Row], Any]], roles: Roles) -> Balanced:
    """terms(roles) -> ((one, other), what is beside them), with |grad one| / (|grad other| + 1e-4) of their means in
    the student's last layer, at most 1e4 and stopped (VQGAN, arXiv:2012.09841, eq. 7). The terms are evaluated once,
    and the way back to the last layer is what follows it alone. Terms may be balanced inside of others.

    Raises UsageError as `last_layer`.
    """
    layer = last_layer(roles)

    def at(kernel: Array) -> tuple[tuple[Row, Row], Any]:
        extras = {**roles.extras, "last_layer": layer._replace(kernel=kernel)}
        return terms(roles._replace(student=layer(kernel), extras=extras))

    (one, other), back, beside = jax.vjp(at, layer.kernel, has_aux=True)

    def length(of_one: float, of_other: float) -> Array:
        (slope,) = back((jnp.full_like(one, of_one / one.size), jnp.full_like(other, of_other / other.size)))
        return jnp.linalg.norm(slope.ravel())

    ratio = jnp.minimum(length(1.0, 0.0) / (length(0.0, 1.0) + 1e-4), 1e4)
    return Balanced(one, other, stop_gradient(ratio), beside)


def sloped(function: Callable[[Points], Row], x: Points) -> Row:
    """function(x), a number a row in which no other row has a part, whose gradient in x is taken here, once, however
    often one is taken of it."""
    value, back = jax.vjp(function, stop_gradient(x))
    (slope,) = back(jnp.ones_like(value))
    return stop_gradient(value) + flat_sum(stop_gradient(slope) * (x - stop_gradient(x)))


def last_layer(roles: Roles) -> LastLayer:
    """The student as a function of its last kernel. Raises UsageError where its network names no last layer."""
    if "last_layer" not in roles.extras:
        raise UsageError(
            "an adaptive weight is of gradients in the network's last layer, which this network does not name: set "
            "`adaptive` to False, or give its file a last_kernel"
        )
    return roles.extras["last_layer"]


def distance(residual: Float[Array, "b *d"], name: str, huber: float) -> Row:
    """How far apart two states are: "squared", "l1" (the mean of |r_i|), or "pseudo_huber" of the row's whole norm with
    the constant huber sqrt(d), d numbers a row (iCT, arXiv:2310.14189: huber = 0.00054; ECT's plain norm has a huber
    near to 0, at which the gradient at 0 does not exist). Raises UsageError for a huber that is not above 0."""
    if huber <= 0:
        raise UsageError(f"method.huber={huber} must be above 0; 1e-6 is the plain norm")
    if name == "l1":
        return flat_mean(jnp.abs(residual))
    squares = squared(residual)
    return squares if name == "squared" else pseudo_huber(squares, huber * math.prod(residual.shape[1:]) ** 0.5)


def perceptual(
    features: Callable[[Array], tuple[Array, ...]], one: Float[Array, "b h w c"], other: Float[Array, "b h w c"]
) -> Row:
    """LPIPS without learned weights (Zhang et al. 2018, arXiv:1801.03924, eq. 1 with w = 1): |a / |a| - b / |b||^2 over
    the channels of a map [B, ..., c], at most 4, its mean over places, summed over the maps that `features` gives."""
    pairs = zip(map(unit, features(one)), map(unit, features(other)), strict=True)
    return sum(flat_mean(jnp.square(a - b).sum(axis=-1)) for a, b in pairs)


def unit(vectors: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    """Each vector of length 1, never below float32. One shorter than 1e-5 is divided by that: where a rectified map has
    nothing at all the direction is 0, and its gradient finite."""
    vectors = vectors.astype(jnp.promote_types(vectors.dtype, jnp.float32))
    return vectors * jax.lax.rsqrt(jnp.maximum(jnp.square(vectors).sum(axis=-1, keepdims=True), 1e-10))


def normalized(tangent: Float[Array, "b *d"], constant: float) -> Float[Array, "b *d"]:
    """g / (|g| + c), a row's length brought to at most 1 (sCM, arXiv:2410.11081, section 4.2); c = 0: g as it is.

    Biased under a conditional target whose law is not symmetric, as `adaptive` is.
    """
    if constant == 0:
        return tangent
    return tangent / expand(jnp.sqrt(squared(tangent)) + constant, tangent)
