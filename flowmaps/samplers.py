"""Ways to generate with a flow map: Sampler = (roles, x at grid[0], grid [K + 1], keys [B], cond) -> Samples.

The first state is interpolant.start(x0). Deterministic samplers do not read the keys.
"""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from flowmaps import lookup, rows, solvers
from flowmaps.errors import UsageError
from flowmaps.identities import flow_map
from flowmaps.interpolants import Interpolant
from flowmaps.rows import expand
from flowmaps.types import Array, Cond, Grid, Keys, Roles, Sampler, Samples, evaluations

Points = Float[Array, "b *d"]


def composed(roles: Roles, x: Points, grid: Grid, keys: Keys, cond: Cond) -> Samples:
    """x <- X_{t_i, t_{i+1}}(x) along the grid."""

    def step(x, s, t, number):
        return flow_map(roles.student, x, s, t, cond), evaluations(roles.student)

    return Samples(*solvers.march(step, x, grid))


def one_step(roles: Roles, x: Points, grid: Grid, keys: Keys, cond: Cond) -> Samples:
    """X_{t_0, t_K}(x): the grid's ends alone."""
    return composed(roles, x, grid[[0, -1]], keys, cond)


def renoising(
    interpolant: Interpolant, latest: float | None, roles: Roles, x: Points, grid: Grid, keys: Keys, cond: Cond
) -> Samples:
    """Multi-step consistency sampling (Song et al. 2023, arXiv:2303.01469, alg. 1): jump to the end, take fresh noise
    back to the next time, and jump again. Gaussian sources; the states at the grid's times have the right law.

    latest: of a model that knows no later times, the last one that noise is put back to; the grid is drawn together
    towards its beginning. None: all times are known."""
    if latest is not None:
        known = grid[0] + (grid - grid[0]) * (latest - grid[0]) / (grid[-1] - grid[0])
        grid = np.concatenate([known[:-1], grid[-1:]])

    def step(x, s, t, number):
        jumped = flow_map(roles.student, x, s, jnp.full_like(s, grid[-1]), cond)
        noise = interpolant.source_std * rows.normal(rows.fold(keys, number), x.shape[1:])
        renoised = interpolant.point(noise.astype(x.dtype), jumped, t)
        return jnp.where(number == len(grid) - 2, jumped, renoised), evaluations(roles.student)

    return Samples(*solvers.march(step, x, grid))


def gamma_sampling(
    interpolant: Interpolant, gamma: float, roles: Roles, x: Points, grid: Grid, keys: Keys, cond: Cond
) -> Samples:
    """Gamma-sampling (CTM, arXiv:2310.02279, alg. 3, on any path): jump past the next time t to the time t' whose noise
    level is sqrt(1 - gamma^2) times t's, then put the rest of the noise back. gamma = 0: composed. A path that ends
    before it gets there has t' at its end, and as much less noise to put back: at the last time none."""
    alpha, beta = interpolant.alpha.value, interpolant.beta.value

    def step(x, s, t, number):
        beyond = interpolant.time_of_level((1 - gamma**2) ** 0.5 * beta(t) / alpha(t))
        jumped = flow_map(roles.student, x, s, beyond, cond)
        noise = interpolant.source_std * rows.normal(rows.fold(keys, number), x.shape[1:])
        scale = alpha(t) / alpha(beyond)
        level = jnp.sqrt(jnp.maximum(beta(t) ** 2 - (scale * beta(beyond)) ** 2, 0))
        return expand(scale, x) * jumped + expand(level, x) * noise.astype(x.dtype), evaluations(roles.student)

    return Samples(*solvers.march(step, x, grid))


def diagonal(
    interpolant: Interpolant, solver: str, roles: Roles, x: Points, grid: Grid, keys: Keys, cond: Cond
) -> Samples:
    """Any solver of the ODE on the diagonal velocity v_{t,t}."""
    return Samples(*solvers.load(solver)(roles.student, interpolant, x, grid, keys, cond))


NAMES = ("one_step", "composed", "renoising", "gamma", "diagonal")


def adds_noise(name: str, gamma: float) -> bool:
    """Whether a sampler of the map draws from the source again, which then must be Gaussian."""
    return name == "renoising" or (name == "gamma" and gamma > 0)


def draws(sampler: Sampler) -> bool:
    """Whether a sampler adds noise on its way, its own or that of the solver on the diagonal."""
    function, bound = getattr(sampler, "func", sampler), getattr(sampler, "args", ())
    if function is diagonal:
        return solvers.needs_gaussian_source(bound[1])
    return function is renoising or (function is gamma_sampling and bound[1] > 0)


def make(name: str, *, interpolant: Interpolant, solver: str = "euler", gamma: float = 0.5) -> Sampler:
    """The sampler `name`, or the sampler `diagonal` with the solver of that name (and options).

    Raises UsageError for an unknown sampler or solver, or a gamma outside of [0, 1].
    """
    if lookup.parse_call("sampler", name)[0] in solvers.names():
        name, solver = "diagonal", name
    lookup.check_name("sampler", name, (*NAMES, *solvers.names()))
    solvers.load(solver)
    if not 0 <= gamma <= 1:
        raise UsageError(f"gamma={gamma} must lie in [0, 1]: 0 adds no noise, 1 renoises in full")
    return {
        "one_step": one_step,
        "composed": composed,
        "renoising": partial(renoising, interpolant, None),
        "gamma": partial(gamma_sampling, interpolant, gamma),
        "diagonal": partial(diagonal, interpolant, solver),
    }[name]
