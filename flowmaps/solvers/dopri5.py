"""The adaptive Dormand-Prince method of order 5 (diffrax), each row with steps of its own: the grid says only where the
states are kept. The count of evaluations is that of the row with the most, as long as which the program runs.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from flowmaps import solvers
from flowmaps.interpolants import Interpolant
from flowmaps.types import Array, Cond, Grid, Keys, Velocity, evaluations

STAGES = 6
"""Evaluations a step, the last stage of one being the first of the next."""


def solve(
    velocity: Velocity,
    interpolant: Interpolant,
    x: solvers.Points,
    grid: Grid,
    keys: Keys,
    cond: Cond,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 4096,
) -> solvers.Trajectory:
    """See flowmaps.solvers. The count is GAVE_UP where a row needs more than `max_steps` steps for its tolerance."""
    solvers.check_end(interpolant, grid)
    times = jnp.asarray(grid, jnp.result_type(float))

    def one(x, cond):
        def slope(t, x, _):
            return velocity(x[None], t[None], t[None], jax.tree.map(lambda c: c[None], cond))[0]

        return integrate(slope, x, times[0], times[-1], rtol=rtol, atol=atol, max_steps=max_steps, keep=times)

    path, steps, reached = jax.vmap(one)(x, cond)
    nfe = (1 + STAGES * steps.max()) * evaluations(velocity)
    path = jnp.moveaxis(path, 1, 0)
    return solvers.Trajectory(path[-1], jnp.where(reached.all(), nfe, solvers.GAVE_UP), path)


def integrate(
    slope: Callable, state: Any, first: float | Array, last: float | Array, *, keep: Array | None = None, **control: Any
) -> tuple[Any, Array, Array]:
    """The state at `last`, or at the times `keep`, of d state / dt = slope(t, state, None) from `first` on; the steps
    taken, those refused included; and whether every one reached its tolerance. control: rtol, atol, max_steps."""
    import diffrax

    max_steps = control.pop("max_steps")
    first, last = (jnp.asarray(t, jnp.result_type(float)) for t in (first, last))
    out = diffrax.diffeqsolve(
        diffrax.ODETerm(slope),
        diffrax.Dopri5(),
        first,
        last,
        None,
        state,
        saveat=diffrax.SaveAt(t1=True) if keep is None else diffrax.SaveAt(ts=keep),
        stepsize_controller=diffrax.PIDController(**control),
        max_steps=max_steps,
        throw=False,
    )
    states = out.ys if keep is not None else jax.tree.map(lambda y: y[0], out.ys)
    return states, out.stats["num_steps"], out.result == diffrax.RESULTS.successful
