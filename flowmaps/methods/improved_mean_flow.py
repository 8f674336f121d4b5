"""Improved MeanFlow (Geng et al. 2025, arXiv:2512.02012; its clock is turned). The network has two heads, u for v_{s,t}
and v for the velocity v_{s,s}, which sampling leaves out. With g = dx_s/ds, or its guided form,

    L = E w |u_st(x_s) - sg[g + (t - s) (d/ds + v . grad) u_st(x_s)]|^2  +  E w |v(x_s) - g|^2,

MeanFlow's Eulerian identity along the network's own velocity, of less variance. Guidance is an input, its scale omega
and interval drawn a row:

    g = dx_s/ds + (1 - 1 / omega) (v(x_s | label, omega) - v(x_s | no label)),

at whose fixed point v has scale omega. Pixel MeanFlow (arXiv:2601.22158) is the prediction `data` and a third term,

    perceptual E w d(x_s + (1 - s) u_st(x_s), x1) for s above 0.2,

of the images that u holds in view, blurred by what the noise hides. Cost: 3F a diagonal row, 5.1F another; guidance
adds 1F, the third term the passes of its own network.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Float

from flowmaps import rows, samplers, times, weightings
from flowmaps.guidance import under_both, with_guidance, without_labels
from flowmaps.identities import directional_derivative
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.rows import expand
from flowmaps.types import Array, Batch, Cond, Keys, Loss, Manyheaded, Method, Roles, Velocity
from flowmaps.weightings import adaptive, squared

Row = Float[Array, " b"]
Points = Float[Array, "b *d"]

BLIND = 0.2
"""Of the path's clock: what is seen of the data before is no image (pixel MeanFlow's perceptual_max_t is 0.8)."""


class Errors(NamedTuple):
    """The raw terms, a number a row each."""

    map: Row
    """|r|^2 of the first head."""
    velocity: Row
    """|r|^2 of the second one."""
    image: Row
    """How unlike the data what the first head sees of them is; 0 where that is no image."""


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    diagonal_fraction: float = 0.5,
    law: tuple = ("logit_normal", 0.4, 1.0),
    power: float = 1.0,
    constant: float = 0.01,
    guidance: tuple[float, float] = (1.0, 1.0),
    label_dropout: float = 0.0,
    perceptual: float = 0.0,
) -> Method:
    """law: of the two times that are sorted into s <= t, see times.on_path. power, constant: of the adaptive weight w.
    guidance: the least and the largest omega, log-uniform between them; (1, 1): none, and no input of the network. The
    interval is all of [0, 1] on diagonal rows, and begins before and ends after 1/2 on others. label_dropout: rows
    without label have omega = 1. perceptual: the third term's factor, 0.4 in its paper, on the maps of the frozen role
    "features"; 0: it is left out, and no such role.

    Raises UsageError for guidance without dropout, or scales that do not rise from above 0.
    """
    learned = _terms.trained_guidance(guidance, label_dropout, intervals=True)
    shares = (diagonal_fraction, 1 - diagonal_fraction)
    pair = times.sorted_pair(times.on_path(interpolant, *law))
    sight = interpolant.t_min + BLIND * (interpolant.t_max - interpolant.t_min)

    def asked(cond: Cond, keys: Keys, *, whole: bool) -> Cond:
        """The condition with a drawn scale and interval."""
        if learned is None:
            return cond
        drawn = learned.low * (learned.high / learned.low) ** rows.uniform(rows.fold(keys, 0))
        scale = jnp.where(_terms.unlabelled(cond), 1.0, drawn)
        low, high = (rows.uniform(rows.fold(keys, stream)) / 2 for stream in (1, 2))
        interval = (0.0, 1.0) if whole else jnp.stack([low, 0.5 + high], axis=-1)
        return with_guidance(cond, scale, interval)

    def unguided(cond: Cond) -> Cond:
        """Without label."""
        return with_guidance(without_labels(cond), jnp.ones_like(cond["guidance"]))

    def second(velocity: Manyheaded) -> Velocity:
        """The head v."""
        return lambda *inputs, dropout=None: velocity.heads(*inputs, dropout=dropout)[1]

    def guide(x: Points, s: Row, velocity: Points, own: Points, plain: Points, cond: Cond) -> Points:
        """g, from the network's own velocities v(x | label, omega) and v(x | no label)."""
        acts = (cond["interval"][:, 0] <= s) & (s <= cond["interval"][:, 1]) & ~_terms.unlabelled(cond)
        return velocity + expand(jnp.where(acts, 1 - 1 / cond["guidance"], 0.0), x) * (own - plain)

    def image_error(roles: Roles, batch: Batch, x: Points, s: Row, t: Row, u: Points) -> Row:
        """Errors.image of v_{s,t}(x) = u."""
        if not perceptual:
            return jnp.zeros_like(s)
        data = interpolant.ends_from_average(x, u, s, t).data
        return jnp.where(s > sight, weightings.perceptual(_terms.features(roles), data, batch["x1"]), 0.0)

    def diagonal_errors(roles: Roles, batch: Batch, cond: Cond, keys: Keys) -> Errors:
        cond = asked(cond, rows.fold(keys, 3), whole=True)
        s = pair(rows.fold(keys, 1)).s
        x, velocity = _terms.path_point(interpolant, batch, s)
        dropout = rows.fold(keys, 2)
        u, v = roles.student.heads(x, s, s, cond, dropout=dropout)
        g = velocity
        if learned is not None:
            plain = second(roles.target)(x, s, s, unguided(cond), dropout=dropout)
            g = stop_gradient(guide(x, s, velocity, v, plain, cond))
        return Errors(squared(u - g), squared(v - g), image_error(roles, batch, x, s, s, u))

    def map_errors(roles: Roles, batch: Batch, cond: Cond, keys: Keys) -> Errors:
        cond = asked(cond, rows.fold(keys, 3), whole=False)
        s, t = pair(rows.fold(keys, 1))
        x, velocity = _terms.path_point(interpolant, batch, s)
        dropout = rows.fold(keys, 2)
        if learned is None:
            own, g = second(roles.target)(x, s, s, cond, dropout=dropout), velocity
        else:
            own, plain = under_both(second(roles.target), x, s, s, cond, unguided(cond), dropout=dropout)
            g = stop_gradient(guide(x, s, velocity, own, plain, cond))

        def at_start(x: Points, s: Row) -> tuple[Points, ...]:
            return roles.student.heads(x, s, t, cond, dropout=dropout)

        (u, v), (du, _) = directional_derivative(at_start, (x, s), (stop_gradient(own), jnp.ones_like(s)))
        residual = u - g - expand(t - s, x) * stop_gradient(du)
        return Errors(squared(residual), squared(v - g), image_error(roles, batch, x, s, t, u))

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        diagonal, off = rows.split((batch, cond, keys), shares)
        raw = {"flow": diagonal_errors(roles, *diagonal), "map": map_errors(roles, *off)}
        terms = {name: weighted(errors) for name, errors in raw.items()}
        logged = {name: errors.map for name, errors in raw.items()}
        logged["velocity"] = jnp.concatenate([errors.velocity for errors in raw.values()])
        if perceptual:
            logged["perceptual"] = jnp.concatenate([errors.image for errors in raw.values()])
        return _terms.loss(terms, shares, shares, logged)

    def weighted(errors: Errors) -> Row:
        """The sum of the terms, each with its own adaptive weight."""
        map_, velocity, image = (adaptive(error, power, constant) for error in errors)
        return map_ + velocity + perceptual * image

    owners = _terms.features_owner(perceptual != 0)
    return Method({"student": student_loss}, samplers.composed, owners, heads=2, guidance=learned)
