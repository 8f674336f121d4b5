"""What the suites over all methods share: laws with known flow maps, and students that stray from them by theta."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from flowmaps import closed_forms, interpolants, rows
from flowmaps.rows import expand
from flowmaps.types import Array, Method, Roles, Velocity

SOURCE_STD = 0.3
"""A narrow source keeps the noise of conditional velocities small beside the effect of theta = 0.1."""
LINEAR = interpolants.linear(source_std=SOURCE_STD)


MEAN = (0.4, -0.3)
COVARIANCE = ((0.09, 0.03), (0.03, 0.05))


def gaussian(interpolant=LINEAR) -> closed_forms.Oracle:
    return closed_forms.gaussian(jnp.array(MEAN), jnp.array(COVARIANCE), interpolant)


def mixture(interpolant=LINEAR, steps: int = 8) -> closed_forms.Oracle:
    """Two unequal modes: its conditional velocities are skewed."""
    covariances = jnp.array([[[0.02, 0.0], [0.0, 0.03]], [[0.05, 0.02], [0.02, 0.04]]])
    means = jnp.array([[0.6, 0.4], [-0.3, -0.2]])
    return closed_forms.mixture(jnp.array([0.25, 0.75]), means, covariances, interpolant, steps)


LAWS = {"gaussian": gaussian, "mixture": mixture}


def perturbations(x: Array, s: Array, t: Array) -> Array:
    """A basis of smooth fields [k, B, 2]: constant, linear in x (a wrong Jacobian shows), oscillating in x, s, t."""
    one = jnp.ones_like(x[:, 0])
    u, v = x[:, 0], x[:, 1]
    fields = [
        (one, -0.5 * one),
        (4 * v, one - 1),
        (4 * u, -4 * v),
        (jnp.cos(3 * u + 2 * s - t), jnp.sin(2 * v - u + t)),
        (3 * u * jnp.sin(2 * (t - s) + 1), 3 * v * jnp.cos(t - 2 * s)),
        (jnp.cos(4 * s + 1), jnp.sin(3 * t)),
    ]
    return jnp.stack([jnp.stack(field, axis=-1) for field in fields])


COUNT = 6


def stray(exact: Velocity, theta: Array) -> Velocity:
    """The exact map's velocity plus theta times the basis, and so each of its heads, where it has several."""

    def field(x, s, t):
        return jnp.einsum("k,kbd->bd", theta, perturbations(x, s, t))

    def velocity(x, s, t, cond, *, dropout=None):
        return exact(x, s, t, cond) + field(x, s, t)

    def heads(x, s, t, cond, *, dropout=None):
        return tuple(head + field(x, s, t) for head in exact.heads(x, s, t, cond))

    velocity.heads = heads
    return velocity


class Interpolated(NamedTuple):
    """The exact heads (v, eta) of a stochastic interpolant on the path LINEAR, and its exact velocity and score."""

    oracle: closed_forms.Oracle
    """Of the path whose source is x0 and the latent together."""
    latent: Callable

    def heads(self, x: Array, s: Array, t: Array, cond, *, dropout=None) -> tuple[Array, Array]:
        data = self.oracle.ends(x, s).data
        fall, gamma = ((1 - s) * SOURCE_STD)[:, None], self.latent(s)[:, None]
        unit = (x - s[:, None] * data) / (fall**2 + gamma**2)
        return data - fall * SOURCE_STD * unit, gamma * unit

    def __call__(self, x: Array, s: Array, t: Array, cond, *, dropout=None) -> Array:
        return self.heads(x, s, t, cond)[0]


def interpolated(law: str, latent: Callable) -> Interpolated:
    """For data of LAWS[law]: source and latent are Gaussian, and so their sum is the source of a path with a wider
    beta."""

    def width(t):
        return jnp.sqrt(((1 - t) * SOURCE_STD) ** 2 + latent(t) ** 2) / SOURCE_STD

    return Interpolated(LAWS[law](interpolants.path(lambda t: t, width, source_std=SOURCE_STD)), latent)


def draw_batch(sample: Callable, keys: Array) -> dict[str, Array]:
    x0 = SOURCE_STD * rows.normal(rows.fold(keys, 101), (2,))
    return {"x0": x0, "x1": sample(rows.fold(keys, 100))}


def euler_map(oracle: closed_forms.Oracle, steps: int, smallest: str) -> Velocity:
    """The average velocity of Euler steps of size 1 / steps on their grid: what shortcut models converge to.

    Off the grid, and for t - s of one step in the paper's variant, it is b_s (asked there by the flow term alone).
    """
    h = 1 / steps

    def velocity(x, s, t, cond, *, dropout=None):
        count = jnp.round((t - s) * steps)

        def advance(moved, i):
            active = expand((i < count).astype(x.dtype), x)
            return moved + active * h * oracle.velocity(moved, s + i * h), None

        moved = jax.lax.scan(advance, x, jnp.arange(steps))[0]
        span = expand(jnp.where(count > 0, t - s, 1.0), x)
        return jnp.where(expand(count, x) > 0, (moved - x) / span, oracle.velocity(x, s))

    return velocity


def skipping_map(oracle: closed_forms.Oracle, step: float, count: int) -> Velocity:
    """The average velocity of at most `count` Euler steps of one size, the last no longer than what is left: where
    latent consistency models rest on the path LINEAR, whose ends DDIM holds; on the diagonal b_s."""

    def velocity(x, s, t, cond, *, dropout=None):
        def advance(carry, _):
            moved, time = carry
            h = jnp.minimum(step, t - time)
            return (moved + expand(h, x) * oracle.velocity(moved, time), time + h), None

        moved = jax.lax.scan(advance, (x, s), None, length=count)[0][0]
        off = (t > s)[:, None]
        return jnp.where(off, (moved - x) / jnp.where(off, (t - s)[:, None], 1.0), oracle.velocity(x, s))

    return velocity


def regressed_map(following: Callable, steps: int, interpolant=LINEAR) -> Velocity:
    """Where consistency training with a finite step rests on the law `gaussian`: X_{s,t}(x) = E[X_{u,t}(x_u) | x_s = x]
    with u = following(s, t), a product of at most `steps` regressions of x_u on x_s; on the diagonal b_s."""
    oracle, mean, covariance = gaussian(interpolant), jnp.array(MEAN), jnp.array(COVARIANCE)
    noise = interpolant.source_std**2 * jnp.eye(2)
    alpha, beta = interpolant.alpha.value, interpolant.beta.value

    def joint(s, u):
        a, b = alpha(s) * alpha(u), beta(s) * beta(u)
        return a[:, None, None] * covariance[None] + b[:, None, None] * noise[None]

    def velocity(x, s, t, cond, *, dropout=None):
        def advance(carry, _):
            matrix, time = carry
            u = following(time, t)
            return (jnp.linalg.solve(joint(time, time), joint(time, u)) @ matrix, u), None

        # All of these matrices commute, being functions of one covariance.
        start = jnp.broadcast_to(jnp.eye(2, dtype=x.dtype), (*s.shape, 2, 2)), s
        matrix = jax.lax.scan(advance, start, None, length=steps)[0][0]
        moved = alpha(t)[:, None] * mean[None] + jnp.einsum("bij,bj->bi", matrix, x - alpha(s)[:, None] * mean[None])
        off = (t > s)[:, None]
        return jnp.where(off, (moved - x) / jnp.where(off, (t - s)[:, None], 1.0), oracle.velocity(x, s))

    return velocity


class TwoHeads(NamedTuple):
    """The exact map and velocity of a law, as the heads of improved MeanFlow."""

    oracle: closed_forms.Oracle

    def heads(self, x: Array, s: Array, t: Array, cond, *, dropout=None) -> tuple[Array, Array]:
        return self.oracle.average_velocity(x, s, t, cond), self.oracle.velocity(x, s)

    def __call__(self, x: Array, s: Array, t: Array, cond, *, dropout=None) -> Array:
        return self.oracle.average_velocity(x, s, t, cond)


class Features:
    """A frozen network whose one map is x times a factor."""

    def __init__(self, factor=1):
        self.heads = lambda x: (factor * x,)


class Gradients(NamedTuple):
    """The mean over batches of the loss's gradient in theta, [k], and its standard error."""

    mean: Array
    error: Array


def gradients(method: Method, exact: Velocity, sample: Callable, rows_each: int = 3072) -> Callable:
    """(theta, batches) -> Gradients of the student's loss at exact + theta * basis, its target at the same theta, and a
    teacher that is exact."""

    def loss(student_theta: Array, theta: Array, keys: Array) -> Array:
        extras = {"log_variance": lambda s, t: jnp.zeros_like(s)}
        roles = Roles(stray(exact, student_theta), stray(exact, theta), exact, extras)
        batch = draw_batch(sample, keys)
        return method.losses["student"](roles, batch, rows.fold(keys, 102), jnp.zeros((), jnp.int32)).per_example.mean()

    @jax.jit
    def one(theta: Array, number: Array) -> Array:
        return jax.grad(loss)(theta, theta, rows.keys(jax.random.key(3), number, rows_each))

    def mean(theta: Array, batches: int) -> Gradients:
        each = jnp.stack([one(theta, number) for number in range(batches)])
        return Gradients(each.mean(0), each.std(0, ddof=1) / batches**0.5)

    return mean
