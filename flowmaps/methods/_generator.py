"""The pieces of methods that match laws: a generator's samples noised and denoised, and its gradient."""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Float

from flowmaps import predictions, rows, times
from flowmaps.errors import UsageError
from flowmaps.identities import flow_map
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.rows import expand, flat_mean
from flowmaps.times import Law
from flowmaps.types import Array, Cond, Keys, Loss, Roles, Velocity

Row = Float[Array, " b"]
Points = Float[Array, "b *d"]

Weighting = Literal["error", "level", "likelihood"]

LEAST = 1e-5
"""Of a mean absolute error by which is divided."""


def generated(
    student: Velocity, interpolant: Interpolant, x0: Points, cond: Cond, dropout: Keys | None = None
) -> Points:
    """G(x0) = X_{0,1}(start(x0)): the source carried to the data in one step."""
    first = jnp.full(x0.shape[:1], interpolant.t_min, x0.dtype)
    last = jnp.full_like(first, interpolant.t_max)
    return flow_map(student, interpolant.start(x0), first, last, cond, dropout)


def source(interpolant: Interpolant, like: Points, keys: Keys) -> Points:
    """Samples of the source, like those of a batch: each player draws its own, by its own keys."""
    return (interpolant.source_std * rows.normal(keys, like.shape[1:])).astype(like.dtype)


def noised(interpolant: Interpolant, x: Points, t: Row, keys: Keys) -> Points:
    """x_t of samples x, with noise of their own."""
    return interpolant.point(source(interpolant, x, keys), x, t)


def denoised(velocity: Velocity, interpolant: Interpolant, x: Points, t: Row, cond: Cond) -> Points:
    """E[x1 | x_t = x], as a velocity tells it."""
    return interpolant.ends_from_velocity(x, velocity(x, t, t, cond), t).data


def noised_pair(interpolant: Interpolant, real: Points, made: Points, t: Row, keys: Keys) -> tuple[Points, Points]:
    """Data and samples at one time of each row, each with noise of its own, as a critic sees them."""
    first, second = (noised(interpolant, x, t, rows.fold(keys, n)) for n, x in enumerate((real, made)))
    return first, second


def with_gradient(x: Points, gradient: Points) -> Row:
    """|x - sg(x - g)|^2 / 2, the mean over a row's d numbers: a loss whose gradient in x is g / d."""
    return flat_mean((x - stop_gradient(x - gradient)) ** 2) / 2


def check_weighting(name: Weighting, interpolant: Interpolant, between: tuple[float, float]) -> None:
    """Raises UsageError where the weight of the last of the times has no bound."""
    with jax.ensure_compile_time_eval():
        clean = interpolant.beta.value(times.at_index(interpolant, jnp.full(1, between[1]), 1))[0] == 0
    if name != "error" and clean:
        raise UsageError(
            f"method.weighting={name!r} has no bound at the end of this path, where there is no noise: set the second "
            f"of method.between={between} below 1"
        )


def weight(
    name: Weighting, interpolant: Interpolant, data_std: float, x: Points, real: Points, t: Row
) -> Float[Array, "b *ones"]:
    """What multiplies a gap between estimates D of the data, of the row's state at t; stopped.

    error: 1 / |x - D|_1, the mean over the row's numbers, after which every time and scale of the data weighs alike
        (DMD, arXiv:2311.18828, eq. 8); of few numbers a row this is at times near to a division by 0.
    level: 1 / c, c = beta source_std data_std / q the standard deviation of x given x_t of a Gaussian x, see
        predictions.spread: what "error" is about, without its noise.
    likelihood: alpha^2 / (beta source_std)^2, with which the gap is the gradient of KL(law of x_t | the data's).
    """
    a, b = interpolant.alpha.value(t), interpolant.beta.value(t) * interpolant.source_std
    if name == "error":
        return expand(1 / jnp.maximum(stop_gradient(flat_mean(jnp.abs(x - real))), LEAST), x)
    if name == "level":
        return predictions.spread(interpolant, data_std, t, x) / expand(b * data_std, x)
    return expand((a / b) ** 2, x)


def estimates(
    roles: Roles, interpolant: Interpolant, x: Points, t: Row, keys: Keys, cond: Cond
) -> tuple[Points, Points]:
    """D and D', of samples noised to t the data that the teacher sees there and those that the fake sees."""
    x_t = noised(interpolant, x, t, keys)
    velocities = _terms.teacher(roles), roles.extras["fake"]
    real, fake = (denoised(velocity, interpolant, x_t, t, cond) for velocity in velocities)
    return real, fake


def matching_gradient(
    roles: Roles,
    interpolant: Interpolant,
    x: Points,
    t: Row,
    keys: Keys,
    cond: Cond,
    *,
    weighting: Weighting,
    data_std: float,
) -> tuple[Points, Points]:
    """w (D' - D), stopped, and D' - D, see `estimates` and `weight`."""
    real, fake = estimates(roles, interpolant, x, t, keys, cond)
    return stop_gradient((fake - real) * weight(weighting, interpolant, data_std, x, real, t)), fake - real


def denoising(
    roles: Roles, interpolant: Interpolant, made: Points, law: Law, data_std: float, keys: Keys, cond: Cond
) -> Loss:
    """EDM's denoising loss (arXiv:2206.00364) of samples in place of data, by which the fake learns their law; the mean
    over a row's numbers."""
    made, t = stop_gradient(made), law(rows.fold(keys, 0))
    noise = source(interpolant, made, rows.fold(keys, 1))
    x = interpolant.point(noise, made, t)
    velocity = roles.extras["fake"](x, t, t, cond, dropout=rows.fold(keys, 2))
    of_data, of_noise = _terms.denoising_errors(interpolant, {"x0": noise, "x1": made}, x, velocity, t)
    return Loss((of_noise + of_data / data_std**2) / made[0].size, {"data": jnp.mean(of_data)})
