"""Latents by the probability-flow ODE (Song et al. 2021, arXiv:2011.13456, section 4.3): data carried to the source
and back, to the tolerance of diffrax's adaptive Dormand-Prince method; and what lies between two of them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from flowmaps import rows, solvers
from flowmaps.interpolants import Interpolant
from flowmaps.rows import expand
from flowmaps.solvers import dopri5
from flowmaps.types import Array, Cond, Velocity

Points = Float[Array, "b *d"]


def encode(
    velocity: Velocity, interpolant: Interpolant, x: Points, cond: Cond, *, rtol: float = 1e-5, atol: float = 1e-5
) -> solvers.Trajectory:
    """The states at t_min from which the ODE leads to x at solvers.last_time; its count is solvers.GAVE_UP where the
    tolerance was not reached."""
    return _between(velocity, interpolant, x, cond, solvers.last_time(interpolant), interpolant.t_min, rtol, atol)


def decode(
    velocity: Velocity, interpolant: Interpolant, x: Points, cond: Cond, *, rtol: float = 1e-5, atol: float = 1e-5
) -> solvers.Trajectory:
    """The data at solvers.last_time to which the ODE leads from x at t_min; its count as of `encode`."""
    return _between(velocity, interpolant, x, cond, interpolant.t_min, solvers.last_time(interpolant), rtol, atol)


def slerp(one: Points, other: Points, share: Float[Array, " b"]) -> Points:
    """Spherical interpolation of latents, row by row: of equal norms it keeps the norm."""
    flat = [v.reshape(v.shape[0], -1) for v in (one, other)]
    unit = [v / jnp.linalg.norm(v, axis=-1, keepdims=True) for v in flat]
    angle = jnp.arccos(jnp.clip(jnp.sum(unit[0] * unit[1], axis=-1), -1, 1))
    # sin(c angle) / sin(angle), whose limit at angle 0 is c
    weights = (c * jnp.sinc(c * angle / jnp.pi) / jnp.sinc(angle / jnp.pi) for c in (1 - share, share))
    a, b = (expand(weight, one) for weight in weights)
    return a * one + b * other


def _between(velocity, interpolant, x, cond, first, last, rtol, atol) -> solvers.Trajectory:
    keys = rows.keys(jax.random.key(0), 0, x.shape[0])  # which the solver does not read
    return dopri5.solve(velocity, interpolant, x, np.array([first, last]), keys, cond, rtol=rtol, atol=atol)
