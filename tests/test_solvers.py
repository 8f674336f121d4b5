"""Solvers on exact velocities: orders of convergence, affine propagation of SDEs, identities, counted evaluations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps import closed_forms, interpolants, rows, solvers
from flowmaps.errors import UsageError
from flowmaps.solvers import grids

pytestmark = pytest.mark.float64

PATHS = {
    "linear": interpolants.linear,
    "trigonometric": interpolants.trigonometric,
    "variance_preserving": interpolants.variance_preserving,
}
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
COUNT = 64


def keys(count):
    return rows.keys(jax.random.key(0), 0, count)


def of(oracle):
    return lambda x, s, t, cond, *, dropout=None: oracle.velocity(x, s)


def two_modes(path):
    """The velocity of data at +-1 with standard deviation 0.3 in each coordinate, short enough to compile at once."""

    def velocity(x, s, t, cond, *, dropout=None):
        a, b = (c.value(s)[:, None] for c in (path.alpha, path.beta))
        variance = (0.3 * a) ** 2 + b**2
        data = (0.09 * a * x + b**2 * jnp.tanh(a * x / variance)) / variance
        return path.velocity((x - a * data) / b, data, s)

    return velocity


def ends_of(path):
    """The times at which beta is 0.98 and 0.1."""
    level = jnp.array([0.98, 0.1])
    t = jnp.linspace(path.t_min, path.t_max, 20_001)
    return np.interp(-level, -path.beta.value(t), t)


def grid_of(name, path, steps):
    first, last = ends_of(path)
    if name == "uniform":
        return np.linspace(first, last, steps + 1)
    start, end = solvers.coefficients(path, np.array([first, last])).log_snr
    if name == "log_snr":
        return solvers.times_of(path, np.linspace(start, end, steps + 1))
    return solvers.times_of(path, -7 * np.log(np.linspace(np.exp(-start / 7), np.exp(-end / 7), steps + 1)))


@pytest.fixture(scope="module")
def problems():
    """path -> (the path, its velocity, starts, exact ends), the ends by 8,192 steps of order 4."""
    made = {}
    with jax.enable_x64(True):
        for name, make in PATHS.items():
            path = make()
            x, velocity = jax.random.normal(jax.random.key(1), (COUNT, 1)), two_modes(path)
            grid = grid_of("uniform", path, 8192)
            exact = jax.jit(lambda x: solvers.load("rk4")(velocity, path, x, grid, keys(COUNT), {}).x)(x)  # noqa: B023
            made[name] = path, velocity, x, exact
    return made


def gently(grid):
    """The grid with its first interval cut into 12 that double: the low orders with which multistep methods begin, for
    want of a history, are then spent on steps too small to matter."""
    return np.concatenate([grid[:1], grid[0] + (grid[1] - grid[0]) * 2.0 ** np.arange(-12, 0), grid[1:]])


def error(solver, problem, grid) -> float:
    """The median over particles: the mean is at the mercy of those near the border between the modes."""
    path, velocity, x, exact = problem
    run, drawn = solvers.load(solver), keys(COUNT)
    out = jax.jit(lambda x: run(velocity, path, x, grid, drawn, {}).x)(x)
    return float(np.median(np.linalg.norm(out - exact, axis=1)))


@pytest.mark.parametrize("solver", ORDERS)
def test_solvers_converge_at_their_order(problems, solver, capsys):
    """The slope of the error from 128 to 512 steps, on three paths with three grids each."""
    order = ORDERS[solver]
    slopes = {}
    for path, problem in problems.items():
        for grid in ("uniform", "log_snr", "karras"):
            coarse, fine = (error(solver, problem, gently(grid_of(grid, problem[0], n))) for n in (128, 512))
            slopes[path, grid] = np.log2(coarse / fine) / 2
    with capsys.disabled():
        print(f"\n{solver:34s} {order}  " + "  ".join(f"{slope:.2f}" for slope in slopes.values()), end="")  # noqa: T201
    np.testing.assert_allclose(list(slopes.values()), order, atol=0.25 if order <= 3 else 0.45)


def test_the_published_third_order_weight_is_of_second_order(problems):
    """On the log-SNR grid, where it shows cleanly: 2 as published, 3 with twice the last weight."""
    for solver, order in (("dpm_solver_pp(order=3,published=True)", 2), ("dpm_solver_pp(order=3)", 3)):
        grid = [gently(grid_of("log_snr", problems["linear"][0], n)) for n in (128, 512)]
        coarse, fine = (error(solver, problems["linear"], g) for g in grid)
        np.testing.assert_allclose(np.log2(coarse / fine) / 2, order, atol=0.25)


MEAN, STD = 0.4, 0.6


def gaussian(path):
    return closed_forms.gaussian(jnp.full(1, MEAN), jnp.full((1, 1), STD**2), path)


def moments(monkeypatch, solver, path, grid, velocity=None, draws=None):
    """The mean and variance of the solution from the exact marginal at grid[0], without Monte Carlo: with Gaussian
    data each step is affine in its state and its noise, so the derivatives in all of them are the whole law."""
    velocity = velocity or of(gaussian(path))
    alpha, beta, _ = solvers.coefficients(path, grid[:1])
    mean, variance = alpha[0] * MEAN, (alpha[0] * STD) ** 2 + (beta[0] * path.source_std) ** 2

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


def test_without_diffusion_the_sde_is_the_ode(problems):
    for sde, ode in (("euler_maruyama", "euler"), ("stochastic_heun", "heun")):
        path, velocity, x, _ = problems["linear"]
        grid = np.linspace(0.1, 0.9, 9)
        run = solvers.load(f"{sde}(scale=0.0,final='noise')")
        out, same = (f(velocity, path, x, grid, keys(COUNT), {}).x for f in (run, solvers.load(ode)))
        np.testing.assert_allclose(out, same, rtol=1e-12)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "pair",
    [
        ("ddim", "dpm_solver(order=1)"),
        ("ddim", "dpm_solver_pp(order=1)"),
        ("ddim", "deis(order=0)"),
        ("ddim", "unipc(order=1,corrector=False)"),
        ("dpm_solver_pp(order=3)", "unipc(order=3,corrector=False)"),
        ("edm_heun", "edm_heun(churn=0.0)"),
    ],
)
def test_solvers_that_are_one_another(problems, path, pair):
    """Of order 1 all exponential integrators are DDIM; the corrected DPM-Solver++(3M) is UniP-3."""
    path, velocity, x, _ = problems[path]
    grid = grid_of("log_snr", path, 20)
    one, other = (solvers.load(name)(velocity, path, x, grid, keys(COUNT), {}).x for name in pair)
    np.testing.assert_allclose(one, other, atol=1e-10)


def test_ddim_with_eta_one_is_ancestral_sampling(problems):
    path, velocity, x, _ = problems["linear"]
    grid = np.linspace(0.02, 1, 9)
    pair = (
        solvers.load(n)(velocity, path, x, grid, keys(COUNT), {}).x
        for n in ("ddim(eta=1)", "ancestral(variance='small')")
    )
    np.testing.assert_allclose(*pair, atol=1e-10)


def test_ancestral_steps_of_the_large_variance_keep_unit_variance(monkeypatch):
    """Data of variance 1 stay at variance 1 along DDPM's chain, to 1e-12, but for its last step, without noise."""
    path = interpolants.discrete()
    unit = closed_forms.gaussian(jnp.zeros(1), jnp.eye(1), path)
    grid = np.arange(0, 201) / 200
    monkeypatch.setattr("test_solvers.MEAN", 0.0)
    monkeypatch.setattr("test_solvers.STD", 1.0)
    _, variance = moments(monkeypatch, "ancestral", path, grid, of(unit))
    np.testing.assert_allclose(variance[:-1], 1, atol=1e-12)


def test_ancestral_steps_of_the_small_variance_are_exact_for_a_point(monkeypatch):
    path = PATHS["linear"]()
    point = closed_forms.gaussian(jnp.full(1, MEAN), jnp.zeros((1, 1)), path)
    monkeypatch.setattr("test_solvers.STD", 0.0)
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


def test_adaptive_steps_reach_their_tolerance(problems):
    path, velocity, x, exact = problems["linear"]
    grid = grid_of("uniform", path, 4)
    counts = []
    for rtol in (1e-3, 1e-6, 1e-9):
        run = solvers.load(f"dopri5(rtol={rtol},atol={rtol})")
        out = jax.jit(lambda x: run(velocity, path, x, grid, keys(COUNT), {}))(x)  # noqa: B023
        assert np.median(np.abs(out.x - exact)) < 10 * rtol
        counts.append(int(out.nfe))
    assert counts == sorted(counts) and counts[-1] > 2 * counts[0]
    run = solvers.load("dopri5(rtol=1e-9,atol=1e-9,max_steps=3)")
    given_up = jax.jit(lambda x: run(velocity, path, x, grid, keys(COUNT), {}))(x)
    assert given_up.nfe == solvers.GAVE_UP


PER_STEP = {
    "heun": 2,
    "midpoint": 2,
    "edm_heun": 2,
    "edm_heun(churn=3)": 2,
    "dpm_solver": 2,
    "dpm_solver(order=3)": 3,
    "dpm_solver_pp(multistep=False)": 2,
    "rk4": 4,
    "annealed_langevin(per_level=3)": 3,
}
EVALUATIONS = {
    "predictor_corrector(corrections=2)": 3 * 5 + 1,
    "predictor_corrector": 2 * 5 + 1,
    "stochastic_heun": 2 * 5 + 1,
    "stochastic_heun(final='noise')": 2 * 6,
    "annealed_langevin": 100 * 7,
    "annealed_langevin(per_level=3)": 3 * 7,
    "dopri5": None,
}


@pytest.mark.parametrize("solver", [*solvers.names(), *(s for s in [*PER_STEP, *EVALUATIONS] if "(" in s)])
def test_evaluations_are_those_of_the_program_that_ran(solver):
    """Over six steps between times of finite log-SNR; the count equals the calls that a callback sees."""
    path, calls = PATHS["linear"](), []
    exact = of(gaussian(path))

    def velocity(x, s, t, cond, *, dropout=None):
        jax.debug.callback(lambda _: calls.append(1), s[0])
        return exact(x, s, t, cond)

    grid, x = np.linspace(0.1, 0.9, 7), jnp.ones((1, 1))
    out = jax.jit(lambda x: solvers.load(solver)(velocity, path, x, grid, keys(1), {}))(x)
    jax.block_until_ready(out)
    jax.effects_barrier()
    assert out.nfe == len(calls)
    expected = EVALUATIONS.get(solver, 6 * PER_STEP.get(solver, 1))
    assert expected is None or out.nfe == expected
    assert out.path.shape == (7, 1, 1) or solver.startswith("dpm_solver_fast")
    np.testing.assert_array_equal(out.path[-1], out.x)


@pytest.mark.parametrize("solver", ["dpm_solver(order=3)", "dpm_solver_pp(order=3)", "deis", "unipc", "edm_heun"])
def test_steps_from_pure_noise_and_to_clean_data_are_of_order_one(solver):
    """On [0, 1] the linear path's log-SNR is infinite at both ends: there DDIM steps, which are exact for a point."""
    path = PATHS["linear"]()
    x = jax.random.normal(jax.random.key(0), (5, 1))

    def velocity(x, s, t, cond, *, dropout=None):
        data = jnp.full_like(x, MEAN)
        s = jnp.minimum(s, 1 - 1e-12)
        return path.velocity(path.ends_from_data(x, data, s).noise, data, s)

    for steps in (1, 2, 3, 8):
        out = solvers.load(solver)(velocity, path, x, np.linspace(0, 1, steps + 1), keys(5), {})
        np.testing.assert_allclose(out.x, MEAN, atol=1e-12)
        assert len(out.path) == steps + 1


@pytest.mark.parametrize("solver", ["ddim", "dpm_solver_pp(order=3)", "unipc", "deis", "edm_heun"])
def test_ddpms_chain_ends_clean(solver):
    """The last step of DDPM's path goes to data without noise: DDIM's, finite and exact for a point."""
    path = interpolants.discrete(num_steps=20)

    def velocity(x, s, t, cond, *, dropout=None):
        data = jnp.full_like(x, MEAN)
        return path.velocity(path.ends_from_data(x, data, s).noise, data, s)

    x = jax.random.normal(jax.random.key(0), (5, 1))
    out = solvers.load(solver)(velocity, path, x, np.linspace(0, 1, 11), keys(5), {})
    np.testing.assert_allclose(out.x, MEAN, atol=1e-9)


def test_edms_last_step_goes_to_no_noise():
    """On a path that ends at sigma_min: one evaluation more, and the denoiser's estimate at the end."""
    path = interpolants.variance_exploding(sigma_max=5.0)
    velocity, x, grid = of(gaussian(path)), jnp.ones((3, 1)), np.linspace(0, 1, 5)
    plain, clean = (solvers.load(f"edm_heun(denoise={d})")(velocity, path, x, grid, keys(3), {}) for d in (False, True))
    assert (plain.nfe, clean.nfe) == (8, 9)
    end = jnp.ones(3)
    np.testing.assert_allclose(clean.x, path.ends_from_velocity(plain.x, velocity(plain.x, end, end, {}), end).data)
    np.testing.assert_array_equal(clean.path[-1], clean.x)


def test_noise_levels_are_in_units_of_x():
    """Karras' levels and the log-normal law are of source_std beta / alpha."""
    one, other = (interpolants.linear(source_std=s) for s in (1.0, 0.5))
    levels = [
        s * np.exp(-solvers.coefficients(p, grids.make("karras", p, 5)[:-1]).log_snr)
        for p, s in ((one, 1), (other, 0.5))
    ]
    np.testing.assert_allclose(*levels, rtol=1e-6)


def test_fast_mixes_orders():
    from flowmaps.solvers.dpm_solver_fast import runs

    assert runs(10) == [(3, 3), (1, 1)]
    assert runs(11) == [(3, 3), (2, 1)]
    assert runs(12) == [(3, 3), (2, 1), (1, 1)]
    assert all(sum(order * steps for order, steps in runs(n)) == n for n in range(1, 40))


def test_grids():
    linear, karras = PATHS["linear"](), interpolants.variance_exploding()
    log_snr = grids.make("log_snr(first=0.01,last=0.99)", linear, 8)
    np.testing.assert_allclose(log_snr[[0, -2, -1]], [0.01, 0.99, 1], atol=1e-9)
    np.testing.assert_allclose(np.diff(solvers.coefficients(linear, log_snr[:-1]).log_snr, n=2), 0, atol=1e-8)
    np.testing.assert_allclose(grids.make("karras", karras, 8), np.linspace(0, 1, 9), atol=1e-9)
    sigma = np.exp(-solvers.coefficients(linear, grids.make("karras", linear, 5)[:-1]).log_snr)
    np.testing.assert_allclose(sigma, np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 5) ** 7, rtol=1e-6)
    np.testing.assert_allclose(grids.make("shifted(shift=3.0)", linear, 2), [0, 1 - 1.5 / 2, 1])
    np.testing.assert_array_equal(grids.make("given(times=(0, 0.3, 1))", linear, 2), [0, 0.3, 1])
    for steps in (1, 2, 3):
        for name in ("karras", "log_snr(first=0.01,last=0.99)", "uniform"):
            assert len(grids.make(name, linear, steps)) == steps + 1


@pytest.mark.parametrize(
    ("solver", "message"),
    [
        ("dimm", "unknown solver 'dimm': did you mean 'ddim'"),
        ("ddim(etta=1)", "unknown option of solver ddim 'etta': did you mean 'eta'"),
        ("ddim(eta=", r"solver 'ddim\(eta=' is neither a name nor NAME"),
        ("ddim(eta=1.5)", r"eta lies in \[0, 1\]"),
        ("unipc(order=4)", "there are orders 1, 2 and 3"),
        ("dpm_solver(order=0)", "there are orders 1, 2 and 3"),
        ("dpm_solver_pp(order=3,multistep=False)", "only as multistep"),
        ("deis(order=4)", "there are orders 0 to 3"),
        ("deis(variable='u')", "unknown variable of deis"),
        ("ancestral(variance='learned')", "unknown variance of ancestral 'learned'"),
        ("euler_maruyama(diffusion='sigmma')", "unknown diffusion 'sigmma': did you mean 'sigma'"),
        ("euler_maruyama(diffusion='reverse')", "needs the score at time 0, where it is infinite on this path"),
        ("stochastic_heun(final='noise')", "needs the score at time 1, where it is infinite"),
        ("annealed_langevin", "needs data at the first time"),
    ],
)
def test_what_a_solver_cannot_do_is_one_line(solver, message):
    path = PATHS["linear"]()
    with pytest.raises(UsageError, match=message):
        solvers.load(solver)(of(gaussian(path)), path, jnp.ones((2, 1)), np.linspace(0, 1, 5), keys(2), {})


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("karas", "unknown grid 'karas': did you mean 'karras'"),
        ("log_snr", "the log-SNR of this path is infinite at time 0"),
        ("log_snr(first=0.1)", "the log-SNR of this path is infinite at time 1"),
        ("given(times=(0, 1))", "has 2 times, and 4 steps need 5"),
        ("given(times=(0, 0.5, 0.4, 0.8, 1))", "they must rise within"),
        ("uniform(first=-0.5)", "they must rise within"),
    ],
)
def test_what_a_grid_cannot_be_is_one_line(grid, message):
    with pytest.raises(UsageError, match=message):
        grids.make(grid, PATHS["linear"](), 4)
