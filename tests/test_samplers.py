"""Samplers and solvers on exact maps: marginals, orders of convergence, counted evaluations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import SOURCE_STD, gaussian

from flowmaps import interpolants, rows, samplers, solvers
from flowmaps.errors import UsageError
from flowmaps.guidance import ClassifierFree
from flowmaps.identities import flow_map
from flowmaps.solvers import grids
from flowmaps.types import NULL_LABEL, Roles

pytestmark = pytest.mark.float64

PATHS = {
    "linear": lambda: interpolants.linear(source_std=SOURCE_STD),
    "trigonometric": lambda: interpolants.trigonometric(source_std=SOURCE_STD),
    "variance_exploding": lambda: interpolants.variance_exploding(sigma_max=400.0, source_std=SOURCE_STD),
}
MEAN, COVARIANCE = np.array([0.4, -0.3]), np.array([[0.09, 0.03], [0.03, 0.05]])


def roles_of(velocity):
    return Roles(velocity, velocity)


def counted(velocity):
    """The velocity, and a list to which every evaluation at run time adds."""
    calls = []

    def spy(x, s, t, cond, *, dropout=None):
        jax.debug.callback(lambda _: calls.append(1), s[0], ordered=True)
        return velocity(x, s, t, cond)

    return spy, calls


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("name", ["one_step", "composed", "renoising", "gamma"])
@pytest.mark.parametrize("path", PATHS)
def test_exact_maps_give_the_exact_marginal(path, name, steps):
    """With the exact Gaussian map every sampler ends at N(alpha m, alpha^2 C + beta^2 std^2), at any step count."""
    path = PATHS[path]()
    count = 40_000
    keys = rows.keys(jax.random.key(0), 0, count)
    x = path.start(SOURCE_STD * rows.normal(rows.fold(keys, 1), (2,)))
    sampler = samplers.make(name, interpolant=path, gamma=0.7)
    grid = grids.make("uniform", path, steps)
    roles = roles_of(gaussian(path).average_velocity)
    out = jax.jit(lambda x: sampler(roles, x, grid, rows.fold(keys, 2), {}).x)(x)
    scale = COVARIANCE.trace()
    np.testing.assert_allclose(out.mean(0), MEAN, atol=4 * (scale / count) ** 0.5)
    np.testing.assert_allclose(np.cov(out.T), COVARIANCE, atol=6 * scale / count**0.5)


@pytest.mark.parametrize("gamma", [0.0, 0.3, 0.7, 1.0])
def test_gamma_sampling_keeps_the_variance_at_every_time(gamma):
    """States at inner times have the interpolant's law: mean alpha m, covariance alpha^2 C + beta^2 std^2."""
    path, count = PATHS["linear"](), 100_000
    keys = rows.keys(jax.random.key(0), 0, count)
    x = SOURCE_STD * rows.normal(rows.fold(keys, 1), (2,))
    sampler = samplers.make("gamma", interpolant=path, gamma=gamma)
    grid = np.array([0.0, 0.3, 0.6])
    out = sampler(roles_of(gaussian(path).average_velocity), x, grid, rows.fold(keys, 2), {}).x
    np.testing.assert_allclose(out.mean(0), 0.6 * MEAN, atol=2e-3)
    np.testing.assert_allclose(np.cov(out.T), 0.36 * COVARIANCE + 0.16 * SOURCE_STD**2 * np.eye(2), atol=2e-3)


def test_gamma_zero_is_composition_and_larger_gamma_forgets():
    """gamma = 0 adds no noise; gamma = 1 is re-noising: the correlation with the first state falls."""
    path, count = PATHS["linear"](), 20_000
    keys = rows.keys(jax.random.key(0), 0, count)
    x = SOURCE_STD * rows.normal(rows.fold(keys, 1), (2,))
    grid = grids.make("uniform", path, 4)
    roles = roles_of(gaussian(path).average_velocity)
    ends = [samplers.make("gamma", interpolant=path, gamma=g)(roles, x, grid, keys, {}).x for g in (0.0, 0.5, 0.9)]
    np.testing.assert_allclose(ends[0], samplers.composed(roles, x, grid, keys, {}).x, atol=1e-9)
    correlations = [np.corrcoef(end[:, 0], x[:, 0])[0, 1] for end in ends]
    assert correlations[0] > correlations[1] + 0.05 > correlations[2] + 0.1


def test_composition_of_the_exact_map_does_not_depend_on_the_grid():
    path = PATHS["linear"]()
    x = SOURCE_STD * jax.random.normal(jax.random.key(0), (32, 2))
    keys, roles = rows.keys(jax.random.key(0), 0, 32), roles_of(gaussian(path).average_velocity)
    one = samplers.one_step(roles, x, np.array([0.0, 0.2, 1.0]), keys, {}).x
    many = samplers.composed(roles, x, np.array([0.0, 0.15, 0.6, 0.7, 1.0]), keys, {}).x
    np.testing.assert_allclose(one, many, atol=1e-13)
    np.testing.assert_allclose(one, flow_map(roles.student, x, jnp.zeros(32), jnp.ones(32), {}), atol=1e-14)


def test_solvers_read_the_diagonal_alone():
    path = PATHS["linear"]()

    def velocity(x, s, t, cond, *, dropout=None):
        return jnp.where((s == t)[:, None], x, jnp.nan)

    for name in set(solvers.names()) - {"flow_map"}:
        sampler = samplers.make("diagonal", interpolant=path, solver=name)
        grid, keys = np.linspace(0.1, 0.9, 4), rows.keys(jax.random.key(0), 0, 2)
        out = jax.jit(lambda x: sampler(roles_of(velocity), x, grid, keys, {}).x)(jnp.ones((2, 2)))  # noqa: B023
        assert np.isfinite(out).all()


def marched(steps, solver="march"):
    """The compiled program of so many steps of a map, or of a multistep solver, with a sine for a network."""
    path = PATHS["linear"]()

    def velocity(x, s, t, cond, *, dropout=None):
        return jnp.sin(x)

    def last(x):
        if solver == "march":
            return solvers.march(lambda x, s, t, number: (velocity(x, s, t, {}), 1), x, np.linspace(0, 1, steps + 1)).x
        grid, keys = grids.make("uniform(first=0.1,last=0.9)", path, steps), rows.keys(jax.random.key(0), 0, 4)
        return solvers.load(solver)(velocity, path, x, grid, keys, {}).x

    return jax.jit(last).lower(jnp.ones((4, 2))).compile()


@pytest.mark.parametrize("solver", ["march", "deis"])
def test_few_steps_are_unrolled_and_many_are_a_loop_of_one(solver):
    loops = {steps: marched(steps, solver).as_text().count(" while(") for steps in (4, 5)}
    assert loops == {4: 0, 5: 1}


def test_states_on_the_way_take_no_memory_where_the_end_alone_is_asked_for():
    assert marched(8).memory_analysis().temp_size_in_bytes == marched(64).memory_analysis().temp_size_in_bytes


@pytest.mark.parametrize("guided", [False, True])
@pytest.mark.parametrize(
    ("name", "solver", "per_step"),
    [
        ("composed", "euler", 1),
        ("renoising", "euler", 1),
        ("gamma", "euler", 1),
        ("diagonal", "euler", 1),
        ("diagonal", "heun", 2),
    ],
)
def test_evaluations_are_those_of_the_program_that_ran(name, solver, per_step, guided):
    """nfe equals the evaluations seen by a callback; a guided call is one of twice the rows and counts two."""
    path, steps = PATHS["linear"](), 5
    spy, calls = counted(gaussian(path).average_velocity)
    velocity = ClassifierFree(spy, 2.0) if guided else spy
    cond = {"label": jnp.zeros(4, jnp.int32)}
    sampler = samplers.make(name, interpolant=path, solver=solver)
    keys = rows.keys(jax.random.key(0), 0, 4)
    out = jax.jit(lambda x: sampler(roles_of(velocity), x, grids.make("uniform", path, steps), keys, cond))(
        jnp.ones((4, 2))
    )
    jax.effects_barrier()
    assert len(calls) == per_step * steps
    assert out.nfe == len(calls) * (2 if guided else 1)


def test_one_step_counts_one():
    path = PATHS["linear"]()
    roles = roles_of(gaussian(path).average_velocity)
    out = samplers.one_step(
        roles, jnp.ones((4, 2)), grids.make("uniform", path, 8), rows.keys(jax.random.key(0), 0, 4), {}
    )
    assert out.nfe == 1


def labelled(x, s, t, cond, *, dropout=None):
    """1 + the label everywhere; without one, 0."""
    return jnp.ones_like(x) * (cond["label"] + 1)[:, None]


def test_guidance_is_the_extrapolation_from_the_unlabelled_velocity():
    x, s = jnp.ones((3, 2)), jnp.array([0.0, 0.5, 1.0])
    cond = {"label": jnp.array([0, 1, NULL_LABEL], jnp.int32)}
    out = ClassifierFree(labelled, 3.0)(x, s, s, cond)
    np.testing.assert_allclose(out[:, 0], [3.0, 6.0, 0.0])
    inside = ClassifierFree(labelled, 3.0, (0.4, 0.6))(x, s, s, cond)
    np.testing.assert_allclose(inside[:, 0], [1.0, 6.0, 0.0])


def test_guidance_of_scale_one_is_the_conditional_velocity():
    x, s = jnp.ones((3, 2)), jnp.array([0.0, 0.5, 1.0])
    cond = {"label": jnp.array([0, 1, 2], jnp.int32)}
    np.testing.assert_array_equal(ClassifierFree(labelled, 1.0)(x, s, s, cond), labelled(x, s, s, cond))


def test_guidance_without_labels_is_refused():
    with pytest.raises(UsageError, match="guidance needs labels"):
        ClassifierFree(labelled, 3.0)(jnp.ones((3, 2)), jnp.zeros(3), jnp.ones(3), {})


def test_unknown_sampler_and_solver():
    with pytest.raises(UsageError, match="did you mean 'composed'"):
        samplers.make("compose", interpolant=PATHS["linear"]())
    with pytest.raises(UsageError, match="did you mean 'heun'"):
        samplers.make("diagonal", interpolant=PATHS["linear"](), solver="huen")


def test_a_solver_is_a_sampler():
    """By its name and options, on the diagonal; and the flow map is a solver too."""
    path, x, keys = PATHS["linear"](), jnp.ones((4, 2)), rows.keys(jax.random.key(0), 0, 4)
    roles, grid = roles_of(gaussian(path).average_velocity), grids.make("uniform", path, 3)
    for one, other in (("heun", {"solver": "heun"}), ("ddim(eta=0.5)", {"solver": "ddim(eta=0.5)"})):
        pair = (samplers.make(n, interpolant=path, **o) for n, o in ((one, {}), ("diagonal", other)))
        np.testing.assert_array_equal(*(sampler(roles, x, grid, keys, {}).x for sampler in pair))
    pair = (samplers.make(n, interpolant=path)(roles, x, grid, keys, {}) for n in ("flow_map", "composed"))
    np.testing.assert_array_equal(*(out.path for out in pair))


def test_gamma_sampling_ends_with_the_paths_own_noise():
    """A path that keeps noise at its end: the last step puts back what the path has, and no more."""
    path = interpolants.variance_preserving(t_max=0.9)
    count = 50_000
    keys = rows.keys(jax.random.key(0), 0, count)
    x = path.start(rows.normal(rows.fold(keys, 1), (2,)))
    sampler = samplers.make("gamma", interpolant=path, gamma=0.9)
    roles = roles_of(gaussian(path).average_velocity)
    out = sampler(roles, x, grids.make("uniform", path, 3), rows.fold(keys, 2), {}).x
    a, b = path.alpha.value(jnp.array(0.9)), path.beta.value(jnp.array(0.9))
    np.testing.assert_allclose(np.cov(out.T), a**2 * COVARIANCE + b**2 * np.eye(2), atol=6 * 0.2 / count**0.5)


def test_gamma_is_a_share():
    with pytest.raises(UsageError, match=r"gamma=1.5 must lie in \[0, 1\]"):
        samplers.make("gamma", interpolant=PATHS["linear"](), gamma=1.5)
