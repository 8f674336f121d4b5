"""The laws of training times: t, and pairs s <= t. Each row's times come from the row's own key."""

import inspect
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Int

from flowmaps import lookup, rows
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.types import Array, Keys

Law = Callable[[Keys], Float[Array, " b"]]
"""keys [B] -> times [B] on [0, 1]."""


class Pair(NamedTuple):
    """A start s and an end t, s <= t."""

    s: Float[Array, " b"]
    t: Float[Array, " b"]


def uniform() -> Law:
    """Uniform on [0, 1)."""
    return rows.uniform


def logit_normal(mean: float = 0.0, std: float = 1.0) -> Law:
    """sigmoid(N(mean, std^2)); a positive mean leans to the data. Papers whose clock ends at the noise have -mean."""

    def draw(keys: Keys) -> Float[Array, " b"]:
        return jax.nn.sigmoid(mean + std * rows.normal(keys, ()))

    return draw


def arctan_log_normal(mean: float = 0.0, std: float = 1.0) -> Law:
    """1 - (2 / pi) arctan(exp(N(mean, std^2))): the log-normal noise levels of the trigonometric path (FACM)."""

    def draw(keys: Keys) -> Float[Array, " b"]:
        return 1 - 2 / jnp.pi * jnp.arctan(jnp.exp(mean + std * rows.normal(keys, ())))

    return draw


def multiples(count: int) -> Law:
    """Uniform on 0, 1/count, ..., (count - 1)/count: DDPM's chain of `count` steps, without its clean end."""
    return lambda keys: jnp.floor(count * rows.uniform(keys)) / count


def ladder(count: int) -> Law:
    """Uniform on 0, 1/(count - 1), ..., 1: NCSN's levels, both ends among them."""
    return lambda keys: jnp.floor(count * rows.uniform(keys)) / (count - 1)


LAWS = {f.__name__: f for f in (uniform, logit_normal, arctan_log_normal, multiples, ladder)}


def law(name: str, *parameters: float | int) -> Law:
    """The law `name` of LAWS with its parameters. Raises UsageError."""
    lookup.check_name("law of times", name, LAWS)
    known = list(inspect.signature(LAWS[name]).parameters)
    if len(parameters) > len(known) or (name in ("multiples", "ladder") and not parameters):
        raise UsageError(f"law of times {(name, *parameters)}: {name} takes {', '.join(known) or 'no parameters'}")
    return LAWS[name](*parameters)


def on_path(interpolant: Interpolant, name: str, *parameters: float | int) -> Law:
    """The law `name` stretched to the path's times; or of the noise level source_std beta / alpha, with mean and
    standard deviation: "log_normal", exp(N(mean, std^2)) (EDM, arXiv:2206.00364, table 1), what is beyond the path's
    levels moved to its ends; "truncated_log_normal", the same law on the path's levels alone (iCT, arXiv:2310.14189).
    """
    of_levels = ("log_normal", "truncated_log_normal")
    lookup.check_name("law of times", name, (*LAWS, *of_levels))
    if name not in of_levels:
        return within(law(name, *parameters), interpolant.t_min, interpolant.t_max)
    if len(parameters) != 2:
        raise UsageError(f"law of times {(name, *parameters)}: {name} takes mean, std")
    mean, std = parameters

    def truncated(keys: Keys) -> Float[Array, " b"]:
        ends = jnp.asarray([interpolant.t_max, interpolant.t_min], jnp.float32)
        low, high = (interpolant.log_level(ends) + jnp.log(interpolant.source_std) - mean) / std
        return jax.vmap(lambda key: jax.random.truncated_normal(key, low, high))(keys)

    def draw(keys: Keys) -> Float[Array, " b"]:
        normal = rows.normal(keys, ()) if name == "log_normal" else truncated(keys)
        return interpolant.time_of_level(jnp.exp(mean + std * normal) / interpolant.source_std)

    return draw


def at_index(interpolant: Interpolant, index: Float[Array, " b"] | Int[Array, " b"], count: Array | int) -> Array:
    """The time index / count [B] of the path's clock, of a grid of `count` intervals."""
    return interpolant.t_min + (interpolant.t_max - interpolant.t_min) * index / count


def share_of(interpolant: Interpolant, low: float, high: float) -> Law:
    """Uniform between two shares of the path's clock: of 0 and 1, its whole. Raises UsageError where they do not rise
    in [0, 1]."""
    if not 0 <= low <= high <= 1:
        raise UsageError(f"method.between={(low, high)}: shares of the path's clock must rise in [0, 1]")
    length = interpolant.t_max - interpolant.t_min
    return within(uniform(), interpolant.t_min + length * low, interpolant.t_min + length * high)


def within(law: Law, low: float, high: float) -> Law:
    """The law stretched from [0, 1] to [low, high], an interpolant's range of times."""
    return lambda keys: low + (high - low) * law(keys)


def sorted_pair(law: Law, other_law: Law | None = None) -> Callable[[Keys], Pair]:
    """Two independent draws, of one law or of two, in order. The uniform law gives the uniform law on the triangle
    s <= t."""
    second = law if other_law is None else other_law

    def draw(keys: Keys) -> Pair:
        one, other = law(rows.fold(keys, 0)), second(rows.fold(keys, 1))
        return Pair(jnp.minimum(one, other), jnp.maximum(one, other))

    return draw


def gap(mean: float, std: float, end_mean: float, end_std: float) -> Callable[[Keys], Pair]:
    """t - s = sigmoid(N(mean, std^2)), and t = sigmoid(N(end_mean, end_std^2)) cut to what leaves s >= 0 (Terminal
    Velocity Matching, arXiv:2511.19797, whose clock is turned)."""

    def draw(keys: Keys) -> Pair:
        length = jax.nn.sigmoid(mean + std * rows.normal(rows.fold(keys, 0), ()))
        low = (jax.scipy.special.logit(length) - end_mean) / end_std
        normal = jax.vmap(lambda key, low: jax.random.truncated_normal(key, low, jnp.inf))(rows.fold(keys, 1), low)
        t = jnp.maximum(jax.nn.sigmoid(end_mean + end_std * normal), length)  # rounding may take it below
        return Pair(t - length, t)

    return draw


def dyadic(levels: int) -> Callable[[Keys], Pair]:
    """Steps t - s = 2^-k with k uniform on 0, ..., levels - 1, and s uniform on the multiples of the step in [0, 1)."""

    def draw(keys: Keys) -> Pair:
        level = jnp.floor(levels * rows.uniform(rows.fold(keys, 0)))
        count = 2.0**level
        s = jnp.floor(count * rows.uniform(rows.fold(keys, 1))) / count
        return Pair(s, s + 1 / count)

    return draw
