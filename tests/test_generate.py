"""Generation by index: the noise and the label of a sample depend on nothing but its seed and its number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_runs

from configs import base
from flowmaps import experiment, generate, interpolants, samplers
from flowmaps.errors import UsageError
from flowmaps.types import Roles


def samples(exp, params, *, steps=1, seed=0, num_samples=100, batch_size=64, sampler="default"):
    program = generate.program(exp, sampler=sampler, batch_size=batch_size)
    return generate.samples(exp, program, params, steps=steps, seed=seed, num_samples=num_samples)


def noise(exp, seed, num_samples):
    @jax.jit
    def draw(i):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), i), 0)
        return exp.interpolant.source_std * jax.random.normal(key, exp.dataset.shape)

    return np.stack([np.asarray(draw(i)) for i in range(num_samples)])


def with_velocity(monkeypatch, velocity):
    monkeypatch.setattr(experiment, "roles_for_sampling", lambda exp, params: Roles(velocity, velocity))


@pytest.mark.parametrize(("steps", "batch_size"), [(1, 64), (3, 64), (1, 17), (3, 104)])
def test_a_velocity_of_zero_gives_the_noise_to_the_bit(steps, batch_size):
    exp = experiment.build(small_runs.plane())
    made = samples(exp, small_runs.zeros(exp), steps=steps, batch_size=batch_size, seed=5)
    np.testing.assert_array_equal(made.x, noise(exp, 5, 100))


def test_noise_does_not_depend_on_the_number_of_devices():
    one, eight = (experiment.build(small_runs.plane(mesh__data=n)) for n in (1, 8))
    alone, together = (samples(exp, small_runs.zeros(exp)).x for exp in (one, eight))
    assert (one.mesh.size, eight.mesh.size) == (1, 8)
    np.testing.assert_array_equal(alone, together)


def test_samples_of_another_seed_are_others():
    exp = experiment.build(small_runs.plane())
    first, second = (samples(exp, small_runs.zeros(exp), seed=seed).x for seed in (0, 1))
    assert not np.intersect1d(first, second).size


def test_labels_take_turns(monkeypatch):
    def label(x, s, t, cond, *, dropout=None):
        return jnp.ones_like(x) * cond["label"][:, None, None, None]

    exp = experiment.build(small_runs.digits())
    with_velocity(monkeypatch, label)
    made = samples(exp, {}, num_samples=25, batch_size=16)
    np.testing.assert_array_equal(made.labels, np.arange(25) % 10)
    moved = np.rint((made.x - noise(exp, 0, 25)).mean(axis=(1, 2, 3)))
    np.testing.assert_array_equal(moved, np.arange(25) % 10)


def test_a_plane_has_no_labels():
    exp = experiment.build(small_runs.plane())
    assert samples(exp, small_runs.zeros(exp)).labels is None


def test_evaluations_are_counted_guidance_and_stages_included():
    exp = experiment.build(small_runs.digits(guidance__scale=2.0, method__label_dropout=0.1, sample__solver="heun"))
    weights = small_runs.zeros(exp)
    counts = {name: samples(exp, weights, steps=3, sampler=name).nfe for name in ("composed", "one_step", "diagonal")}
    assert counts == {"composed": 2 * 3, "one_step": 2, "diagonal": 2 * 2 * 3}


def test_a_program_is_compiled_once_for_each_number_of_steps(monkeypatch):
    exp, traces = experiment.build(small_runs.plane()), []

    def velocity(x, s, t, cond, *, dropout=None):
        return x

    monkeypatch.setattr(
        experiment, "roles_for_sampling", lambda exp, params: traces.append(0) or Roles(velocity, velocity)
    )
    program = generate.program(exp, batch_size=16)
    for steps in (1, 3, 1, 3):
        for seed in (0, 1):
            generate.samples(exp, program, {}, steps=steps, seed=seed, num_samples=40)
    assert len(traces) == 2


def test_trajectories_begin_in_the_noise_and_end_in_the_samples(monkeypatch):
    def velocity(x, s, t, cond, *, dropout=None):
        return jnp.sin(3 * x) + s[:, None]

    exp = experiment.build(small_runs.plane())
    with_velocity(monkeypatch, velocity)
    (_, one), (_, three) = generate.trajectories(exp, {1: {}, 3: {}}, seed=2, num_samples=9)
    assert (one.shape, three.shape) == ((2, 9, 2), (4, 9, 2))
    for states, steps in ((one, 1), (three, 3)):
        np.testing.assert_array_equal(states[0], noise(exp, 2, 9))
        np.testing.assert_allclose(states[-1], samples(exp, {}, steps=steps, seed=2).x[:9], rtol=1e-6, atol=1e-6)


def test_a_sampler_is_described_with_what_is_bound_to_it():
    path = experiment.build(small_runs.plane()).interpolant
    made = {name: samplers.make(name, interpolant=path, solver="heun", gamma=0.25) for name in samplers.NAMES}
    assert {name: generate.description(sampler) for name, sampler in made.items()} == {
        "one_step": "one_step",
        "composed": "composed",
        "renoising": "renoising",
        "gamma": "gamma_sampling(0.25)",
        "diagonal": "diagonal(heun)",
    }


def test_wrong_values_are_named():
    with pytest.raises(UsageError, match=r"unknown grid 'unifrom': did you mean 'uniform'\?"):
        generate.time_grid(experiment.build(small_runs.plane(sample__grid="unifrom")), 2)
    exp = experiment.build(small_runs.plane())
    with pytest.raises(UsageError, match="0 steps"):
        generate.time_grid(exp, 0)
    with pytest.raises(UsageError, match=r"unknown sampler 'composd': did you mean 'composed'\?"):
        generate.program(exp, sampler="composd", batch_size=8)
    with pytest.raises(UsageError, match="a batch of 0 samples"):
        generate.program(exp, batch_size=0)


def test_a_chain_has_no_more_steps_than_it_was_trained_on():
    config = small_runs.plane("diffusion", eval__steps=(1, 10), sample__steps=(10,))
    config.interpolant = base.part(interpolants, "discrete", num_steps=10)
    exp = experiment.build(config)
    np.testing.assert_allclose(generate.time_grid(exp, 10), np.arange(11) / 10)
    with pytest.raises(UsageError, match=r"11 steps along a chain of interpolant\.num_steps=10: take at most as many"):
        generate.time_grid(exp, 11)


def test_sampler_is_the_methods_the_configs_or_the_asked_one():
    """Evaluations of a student for four steps: one_step 1, composed 4, Heun on the diagonal 8."""
    config = small_runs.plane()
    exp = experiment.build(config)
    roles = experiment.roles_for_sampling(exp, experiment.init(exp).params["student"])
    assert isinstance(roles, Roles)
    keys = jax.random.split(jax.random.key(0), 4)

    def nfe(name="default"):
        sampler = generate.make_sampler(exp, name)
        return int(sampler(roles, jnp.zeros((4, 2)), np.linspace(0, 1, 5), keys, {}).nfe)

    assert generate.make_sampler(exp) is exp.method.sampler
    assert (nfe(), nfe("one_step")) == (4, 1)
    config.sample.update({"sampler": "diagonal", "solver": "heun"})
    assert (nfe(), nfe("one_step"), nfe("composed")) == (8, 1, 4)
    with pytest.raises(UsageError, match="unknown sampler 'onestep': did you mean 'one_step'"):
        generate.make_sampler(exp, "onestep")


def test_a_start_without_the_score_is_refused_to_solvers_that_need_it():
    """A paired source is no longer Gaussian given x_t's noise, so SDEs would sample another law."""
    config = small_runs.plane("flow_matching")
    config.coupling = base.part(base.couplings, "optimal_transport")
    exp = experiment.build(config)
    for name in ("euler_maruyama", "ddim(eta=0.5)", "ancestral"):
        with pytest.raises(UsageError, match="needs the score"):
            generate.make_sampler(exp, name)
    generate.make_sampler(exp, "ddim")
    config.coupling = base.part(base.couplings, "independent")
    generate.make_sampler(experiment.build(config), "euler_maruyama")


def test_maps_to_the_end_alone_are_not_composed():
    exp = experiment.build(small_runs.plane("consistency"))
    for name in ("composed", "gamma"):
        with pytest.raises(UsageError, match=f"sampler '{name}' asks for maps between all times"):
            generate.make_sampler(exp, name)
