"""Solvers on exact velocities: identities between them, counted evaluations, their ends, and what they refuse."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from two_modes import COUNT, PATHS, grid_of, keys, of, problem

from flowmaps import closed_forms, interpolants, solvers
from flowmaps.errors import UsageError

pytestmark = pytest.mark.float64

MEAN, STD = 0.4, 0.6


def gaussian(path):
    return closed_forms.gaussian(jnp.full(1, MEAN), jnp.full((1, 1), STD**2), path)


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
def test_solvers_that_are_one_another(path, pair):
    """Of order 1 all exponential integrators are DDIM; the corrected DPM-Solver++(3M) is UniP-3."""
    path, velocity, x, _ = problem(path)
    grid = grid_of("log_snr", path, 20)
    one, other = (solvers.load(name)(velocity, path, x, grid, keys(COUNT), {}).x for name in pair)
    np.testing.assert_allclose(one, other, atol=1e-10)


def test_ddim_with_eta_one_is_ancestral_sampling():
    path, velocity, x, _ = problem("linear")
    grid = np.linspace(0.02, 1, 9)
    pair = (
        solvers.load(n)(velocity, path, x, grid, keys(COUNT), {}).x
        for n in ("ddim(eta=1)", "ancestral(variance='small')")
    )
    np.testing.assert_allclose(*pair, atol=1e-10)


def test_adaptive_steps_reach_their_tolerance():
    path, velocity, x, exact = problem("linear")
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


def test_fast_mixes_orders():
    from flowmaps.solvers.dpm_solver_fast import runs

    assert runs(10) == [(3, 3), (1, 1)]
    assert runs(11) == [(3, 3), (2, 1)]
    assert runs(12) == [(3, 3), (2, 1), (1, 1)]
    assert all(sum(order * steps for order, steps in runs(n)) == n for n in range(1, 40))


@pytest.mark.parametrize("solver", ["heun", "rk4", "dopri5"])
def test_an_infinite_last_velocity_is_told(solver):
    """DDPM's path has one; midpoint and Euler do not read it."""
    path = interpolants.discrete()
    velocity, x = of(gaussian(path)), jnp.ones((2, 1))
    with pytest.raises(UsageError, match=r"reads the velocity at time 1, .*sample.grid='uniform\(last=0.999\)'"):
        solvers.load(solver)(velocity, path, x, np.linspace(0, 1, 5), keys(2), {})
    for other, grid in ((solver, np.linspace(0, 0.999, 5)), ("midpoint", np.linspace(0, 1, 5))):
        assert np.isfinite(solvers.load(other)(velocity, path, x, grid, keys(2), {}).x).all()


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
