"""DDPM's ancestral sampling (Ho et al. 2020, arXiv:2006.11239, alg. 2, on any path): the posterior's mean, with noise
of the posterior's variance ("small": exact for a point mass) or of the forward transition's ("large": exact for data
of the source's variance). The last step adds none.
"""

import jax.numpy as jnp

from flowmaps import lookup, solvers
from flowmaps.interpolants import Interpolant
from flowmaps.rows import expand
from flowmaps.solvers import ddim
from flowmaps.types import Cond, Grid, Keys, Velocity, evaluations

VARIANCES = {"small": ddim.posterior_std, "large": ddim.transition_std}

ADDS_NOISE = True


def solve(
    velocity: Velocity,
    interpolant: Interpolant,
    x: solvers.Points,
    grid: Grid,
    keys: Keys,
    cond: Cond,
    *,
    variance: str = "large",
) -> solvers.Trajectory:
    """See flowmaps.solvers. Raises UsageError for an unknown variance."""
    lookup.check_name("variance of ancestral", variance, VARIANCES)

    def step(x, s, t, number):
        source, data = solvers.ends(velocity, interpolant, x, s, cond)
        posterior = ddim.posterior_std(interpolant, s, t)
        kept = jnp.sqrt(interpolant.beta.value(t) ** 2 - posterior**2)
        mean = expand(interpolant.alpha.value(t), x) * data + expand(kept, x) * source
        spread = jnp.where(number < len(grid) - 2, VARIANCES[variance](interpolant, s, t), 0)
        return mean + expand(spread, x) * solvers.noise(interpolant, keys, number, x), evaluations(velocity)

    return solvers.march(step, x, grid)
