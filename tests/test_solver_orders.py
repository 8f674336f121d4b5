"""Orders of convergence of the deterministic solvers."""

import jax
import numpy as np
import pytest
from two_modes import COUNT, PATHS, grid_of, keys, problem

from flowmaps import solvers

pytestmark = pytest.mark.float64

ORDERS = {
    "euler": 1,
    "ddim": 1,
    "dpm_solver(order=1)": 1,
    "dpm_solver_pp(order=1)": 1,
    "deis(order=0)": 1,
    "heun": 2,
    "midpoint": 2,
    "edm_heun": 2,
    "dpm_solver(order=2)": 2,
    "dpm_solver_pp(multistep=False)": 2,
    "dpm_solver_pp(order=2)": 2,
    "deis(order=1)": 2,
    "deis(order=1,variable='rho')": 2,
    "unipc(order=2,corrector=False)": 2,
    "unipc(order=1)": 2,
    "dpm_solver(order=3)": 3,
    "dpm_solver_pp(order=3)": 3,
    "deis(order=2)": 3,
    "deis(order=2,variable='rho')": 3,
    "unipc(order=3,corrector=False)": 3,
    "unipc(order=2)": 3,
    "unipc(order=2,scale='bh1')": 3,
    "rk4": 4,
    "deis(order=3)": 4,
    "unipc(order=3)": 4,
}


def gently(grid):
    """The grid with its first interval cut into 12 that double: the low orders with which multistep methods begin, for
    want of a history, are then spent on steps too small to matter."""
    return np.concatenate([grid[:1], grid[0] + (grid[1] - grid[0]) * 2.0 ** np.arange(-12, 0), grid[1:]])


def error(solver, path, grid) -> float:
    """The median over particles: the mean is at the mercy of those near the border between the modes."""
    path, velocity, x, exact = problem(path)
    run, drawn = solvers.load(solver), keys(COUNT)
    out = jax.jit(lambda x: run(velocity, path, x, grid, drawn, {}).x)(x)
    return float(np.median(np.linalg.norm(out - exact, axis=1)))


LONG = ("dpm_solver(order=1)", "deis(order=0)", "unipc(order=1)", "unipc(order=2,scale='bh1')")
"""Other ways to write what the others show."""


@pytest.mark.parametrize("solver", [pytest.param(s, marks=[pytest.mark.long] if s in LONG else []) for s in ORDERS])
def test_solvers_converge_at_their_order(solver, capsys):
    """The slope of the error from 128 to 512 steps, on three paths with three grids each."""
    order = ORDERS[solver]
    slopes = {}
    for path in PATHS:
        for grid in ("uniform", "log_snr", "karras"):
            coarse, fine = (error(solver, path, gently(grid_of(grid, problem(path).path, n))) for n in (128, 512))
            slopes[path, grid] = np.log2(coarse / fine) / 2
    with capsys.disabled():
        print(f"\n{solver:34s} {order}  " + "  ".join(f"{slope:.2f}" for slope in slopes.values()), end="")  # noqa: T201
    np.testing.assert_allclose(list(slopes.values()), order, atol=0.25 if order <= 3 else 0.45)


def test_the_published_third_order_weight_is_of_second_order():
    """On the log-SNR grid, where it shows cleanly: 2 as published, 3 with twice the last weight."""
    for solver, order in (("dpm_solver_pp(order=3,published=True)", 2), ("dpm_solver_pp(order=3)", 3)):
        grid = [gently(grid_of("log_snr", problem("linear").path, n)) for n in (128, 512)]
        coarse, fine = (error(solver, "linear", g) for g in grid)
        np.testing.assert_allclose(np.log2(coarse / fine) / 2, order, atol=0.25)
