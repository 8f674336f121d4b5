"""DDIM (Song et al. 2021, arXiv:2010.02502, eq. 12 on any path): of order 1, from the ODE to ancestral sampling by eta

x_t = alpha_t E[x1 | x_s] + sqrt(beta_t^2 - c^2) E[x0 | x_s] + c z,    c = eta posterior_std(s, t).
"""

import jax.numpy as jnp

from flowmaps import solvers
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.rows import expand
from flowmaps.types import Cond, Grid, Keys, Velocity, evaluations

ADDS_NOISE = "eta"


def solve(
    velocity: Velocity,
    interpolant: Interpolant,
    x: solvers.Points,
    grid: Grid,
    keys: Keys,
    cond: Cond,
    *,
    eta: float = 0.0,
) -> solvers.Trajectory:
    """See flowmaps.solvers. eta 0: deterministic; 1: DDPM's ancestral sampling. Raises UsageError outside [0, 1]."""
    if not 0 <= eta <= 1:
        raise UsageError(f"ddim(eta={eta}): eta lies in [0, 1]; 0 is the ODE, 1 ancestral sampling")

    def step(x, s, t, number):
        source, data = solvers.ends(velocity, interpolant, x, s, cond)
        spread = eta * posterior_std(interpolant, s, t)
        kept = jnp.sqrt(interpolant.beta.value(t) ** 2 - spread**2)
        moved = expand(interpolant.alpha.value(t), x) * data + expand(kept, x) * source
        if eta:
            moved = moved + expand(spread, x) * solvers.noise(interpolant, keys, number, x)
        return moved, evaluations(velocity)

    return solvers.march(step, x, grid)


def transition_std(interpolant: Interpolant, s: solvers.Times, t: solvers.Times) -> solvers.Times:
    """Of x_s given x_t, s < t, in units of source_std: the noise that the forward chain adds from t back to s."""
    (a_s, a_t), (b_s, b_t) = ((c.value(s), c.value(t)) for c in (interpolant.alpha, interpolant.beta))
    return jnp.sqrt(jnp.maximum(b_s**2 - (a_s / a_t * b_t) ** 2, 0))


def posterior_std(interpolant: Interpolant, s: solvers.Times, t: solvers.Times) -> solvers.Times:
    """Of x_t given x_s and x1, s < t, in units of source_std."""
    return interpolant.beta.value(t) / interpolant.beta.value(s) * transition_std(interpolant, s, t)
