"""SDE solvers on Gaussian data: every step is affine, so that mean and covariance are carried through exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import LINEAR, SOURCE_STD, Interpolated
from two_modes import COUNT, PATHS, keys, of, problem

from flowmaps import closed_forms, interpolants, solvers
from flowmaps.methods import stochastic_interpolant
from flowmaps.solvers import grids

pytestmark = pytest.mark.float64

MEAN, STD = 0.4, 0.6


def gaussian(path):
    return closed_forms.gaussian(jnp.full(1, MEAN), jnp.full((1, 1), STD**2), path)


def moments(monkeypatch, solver, path, grid, velocity=None, draws=None, start=None):
    """The mean and variance of the solution from the exact marginal at grid[0], without Monte Carlo: with Gaussian
    data each step is affine in its state and its noise, so the derivatives in all of them are the whole law."""
    velocity = velocity or of(gaussian(path))
    mean, variance = (moment[0] for moment in start or marginal(path, grid[0]))

    def solution(x, table):
        monkeypatch.setattr(solvers, "normal", lambda keys, number, x: jnp.full_like(x, table[number]))
        return solvers.load(solver)(velocity, path, x.reshape(1, 1), grid, keys(1), {}).path[:, 0, 0]

    still = jnp.zeros(draws or len(grid) - 1)
    x = jnp.array(mean)
    path, (by_start, by_noise) = jax.jit(lambda *at: (solution(*at), jax.jacfwd(solution, (0, 1))(*at)))(x, still)
    return path, by_start**2 * variance + (by_noise**2).sum(1)


def marginal(path, t):
    alpha, beta, _ = solvers.coefficients(path, np.atleast_1d(t))
    return alpha * MEAN, (alpha * STD) ** 2 + (beta * path.source_std) ** 2


DIFFUSIONS = ("constant", "reverse", "sigma", "linear", "decreasing", "rising_falling")


@pytest.mark.parametrize("diffusion", DIFFUSIONS)
@pytest.mark.parametrize("method", ["euler_maruyama", "stochastic_heun"])
@pytest.mark.parametrize("path", ["linear", "trigonometric"])
def test_sdes_keep_the_marginals_to_weak_order_one(monkeypatch, path, method, diffusion):
    """Mean and variance at the end, with each diffusion: the error falls as 1 / steps (from 64, or 512, on)."""
    path = PATHS[path](source_std=0.8)
    errors = []
    for steps in (64, 256) if method == "euler_maruyama" else (512, 2048):
        grid = np.linspace(0.1, 0.9, steps + 1)
        mean, variance = moments(monkeypatch, f"{method}(diffusion={diffusion!r},final='noise')", path, grid)
        exact_mean, exact_variance = marginal(path, grid[-1])
        errors.append(abs(mean[-1] - exact_mean[0]) + abs(variance[-1] - exact_variance[0]))
    slope = np.log2(errors[0] / errors[1]) / 2
    assert 0.75 < slope < (1.35 if method == "euler_maruyama" else 2.2), slope


@pytest.mark.parametrize("latent", ["bridge", "sine", "constant"])
@pytest.mark.parametrize(("diffusion", "grid"), [("constant", (0.1, 0.9)), ("rising_falling", (0.001, 0.9))])
def test_sdes_take_their_score_from_a_learned_latent(monkeypatch, latent, diffusion, grid):
    """x_t = t x1 + (1 - t) x0 + gamma z."""
    latent = getattr(stochastic_interpolant, latent)(0.4)
    width = lambda t: jnp.sqrt((1 - t) ** 2 + (latent.value(t) / SOURCE_STD) ** 2)  # noqa: E731
    wide = interpolants.path(lambda t: t, width, source_std=SOURCE_STD)
    model = stochastic_interpolant.Model(Interpolated(gaussian(wide), latent.value), latent, LINEAR)
    solver, errors = f"euler_maruyama(diffusion={diffusion!r},final='noise')", []
    for steps in (128, 512):
        times = np.linspace(*grid, steps + 1)
        mean, variance = moments(monkeypatch, solver, LINEAR, times, model, start=marginal(wide, times[0]))
        exact_mean, exact_variance = marginal(wide, times[-1])
        errors.append(abs(mean[-1] - exact_mean[0]) + abs(variance[-1] - exact_variance[0]))
    assert 0.75 < np.log2(errors[0] / errors[1]) / 2 < 1.35, errors


def test_without_diffusion_the_sde_is_the_ode():
    for sde, ode in (("euler_maruyama", "euler"), ("stochastic_heun", "heun")):
        path, velocity, x, _ = problem("linear")
        grid = np.linspace(0.1, 0.9, 9)
        run = solvers.load(f"{sde}(scale=0.0,final='noise')")
        out, same = (f(velocity, path, x, grid, keys(COUNT), {}).x for f in (run, solvers.load(ode)))
        np.testing.assert_allclose(out, same, rtol=1e-12)


def test_ancestral_steps_of_the_large_variance_keep_unit_variance(monkeypatch):
    """Data of variance 1 stay at variance 1 along DDPM's chain, to 1e-12, but for its last step, without noise."""
    path = interpolants.discrete()
    unit = closed_forms.gaussian(jnp.zeros(1), jnp.eye(1), path)
    grid = np.arange(0, 201) / 200
    monkeypatch.setattr("test_sdes.MEAN", 0.0)
    monkeypatch.setattr("test_sdes.STD", 1.0)
    _, variance = moments(monkeypatch, "ancestral", path, grid, of(unit))
    np.testing.assert_allclose(variance[:-1], 1, atol=1e-12)


def test_ancestral_steps_of_the_small_variance_are_exact_for_a_point(monkeypatch):
    path = PATHS["linear"]()
    point = closed_forms.gaussian(jnp.full(1, MEAN), jnp.zeros((1, 1)), path)
    monkeypatch.setattr("test_sdes.STD", 0.0)
    grid = np.linspace(0.1, 0.9, 9)
    mean, variance = moments(monkeypatch, "ddim(eta=1)", path, grid, of(point))
    for found, exact in zip((mean, variance), marginal(path, grid), strict=True):
        np.testing.assert_allclose(found, exact, atol=1e-12)


def test_churn_keeps_the_marginals(monkeypatch):
    """EDM's churn adds as much noise as it then removes: mean and variance stay the path's, to second order."""
    path = interpolants.variance_exploding(sigma_max=20.0)
    errors = []
    for steps in (16, 64):
        grid = np.linspace(0.1, 1, steps + 1)
        _, variance = moments(monkeypatch, f"edm_heun(churn={steps / 8})", path, grid)
        errors.append(abs(variance[-1] - marginal(path, 1.0)[1][0]))
    assert errors[0] / errors[1] > 8


def test_langevin_rests_at_the_variance_of_its_step(monkeypatch):
    """At one level of variance V the step a rests at V / (1 - a / (4 V)), in either convention."""
    path = interpolants.geometric(sigma_min=0.5, sigma_max=0.5 * (1 + 1e-9))
    V = STD**2 + 0.25
    for convention, size in (("paper", 0.08), ("released", 0.04)):
        solver = f"annealed_langevin(step_size={size},per_level=200,convention={convention!r})"
        mean, variance = moments(monkeypatch, solver, path, np.array([0.0, 1.0]), draws=400)
        np.testing.assert_allclose(mean[-1], MEAN, atol=1e-9)
        np.testing.assert_allclose(variance[-1], V / (1 - 0.08 / (4 * V)), rtol=1e-8)


def test_predictor_corrector_keeps_the_marginal(monkeypatch):
    """The corrector's own bias is that of Langevin steps of its size, a share snr^2 of the noise's variance; and it
    takes away what the predictor's steps leave."""
    path = PATHS["variance_preserving"]()
    exact = marginal(path, 0.99)[1][0]

    def bias(steps, **options):
        chosen = ",".join(f"{name}={value}" for name, value in options.items())
        grid = grids.make("uniform(last=0.99)", path, steps)
        draws = steps * (1 + options.get("corrections", 1))
        return abs(moments(monkeypatch, f"predictor_corrector({chosen})", path, grid, draws=draws)[1][-1] / exact - 1)

    assert bias(400) < 0.01
    assert bias(50, corrections=5) < bias(50, corrections=1) < bias(50, corrections=0)
