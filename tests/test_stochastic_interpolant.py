"""Stochastic interpolants: velocity and score from the heads, SDEs with their marginals, two data sets."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_runs
from laws import LAWS, LINEAR, SOURCE_STD, interpolated

from configs import base
from flowmaps import data, evaluate, experiment, generate, interpolants, rows, solvers
from flowmaps.errors import UsageError
from flowmaps.methods import stochastic_interpolant
from flowmaps.methods.stochastic_interpolant import Model

LATENTS = {name: getattr(stochastic_interpolant, name)(0.2) for name in ("bridge", "sine", "constant")}


@pytest.mark.float64
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("latent", LATENTS)
def test_velocity_and_score_are_those_of_the_wider_path(key, latent, law):
    exact = interpolated(law, LATENTS[latent].value)
    model = Model(exact, LATENTS[latent], LINEAR)
    x = jax.random.normal(key, (64, 2))
    t = jnp.linspace(0.01, 0.99, 64)
    np.testing.assert_allclose(model(x, t, t, {}), exact.oracle.velocity(x, t), rtol=1e-9, atol=1e-9)
    velocity, noise = model.velocity_and_noise(x, t, {})
    score = -noise / (model.level(t)[:, None] * SOURCE_STD**2)
    path = interpolants.path(lambda t: t, lambda t: jnp.sqrt((1 - t) ** 2 + model.level(t) ** 2), source_std=SOURCE_STD)
    np.testing.assert_allclose(velocity, model(x, t, t, {}), atol=1e-12)
    np.testing.assert_allclose(model.ends(x, t, {})[1], exact.oracle.ends(x, t).data, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(score, path.score(exact.oracle.ends(x, t).noise, t), rtol=1e-9, atol=1e-9)


@pytest.mark.float64
@pytest.mark.parametrize("solver", ["euler_maruyama(diffusion='rising_falling')", "edm_heun(denoise=True)"])
@pytest.mark.parametrize("latent", LATENTS)
def test_a_denoised_end_is_the_mean_of_the_data(key, latent, solver):
    """Without what is left of the latent: E[x1 | x] at the last time before the end, or at the end."""
    exact = interpolated("gaussian", LATENTS[latent].value)
    model, x = Model(exact, LATENTS[latent], LINEAR), jax.random.normal(key, (8, 2))
    keys = rows.keys(key, 0, 8)
    out = solvers.load(solver)(model, LINEAR, x, np.array([0.5, 0.9]), keys, {})
    if solver.startswith("edm"):
        before = solvers.load("edm_heun")(model, LINEAR, x, np.array([0.5, 0.9]), keys, {}).x
        expected = exact.oracle.ends(before, jnp.full(8, 0.9)).data
    else:
        data = exact.oracle.ends(x, jnp.full(8, 0.5)).data
        expected = LINEAR.point(model.ends(x, jnp.full(8, 0.5), {})[0], data, jnp.full(8, 0.9))
    np.testing.assert_allclose(out.x, expected, rtol=1e-9, atol=1e-9)


def two_sets(**fields):
    """From two moons to the checkerboard, small."""
    return small_runs.plane("stochastic_interpolant", data__source={"name": "moons", **data.options("moons")}, **fields)


def test_batches_bring_rows_of_the_second_data_set():
    """x0 has the law of the moons and is independent of x1, whose rows are those of the data alone."""
    target, source = data.load("checker"), data.load("moons")
    both = data.paired(target, source).train.batch(np.arange(20_000), seed=3)
    np.testing.assert_array_equal(both["x1"], target.train.batch(np.arange(20_000), seed=3)["x1"])
    moons = source.train.batch(np.arange(20_000), seed=4)["x1"]
    np.testing.assert_allclose(both["x0"].mean(0), moons.mean(0), atol=4 * moons.std() * (2 / 20_000) ** 0.5)
    correlation = np.corrcoef(np.concatenate([both["x0"], both["x1"]], axis=1).T)[:2, 2:]
    np.testing.assert_allclose(correlation, 0, atol=4 / 20_000**0.5)


def test_rows_of_a_list_come_evenly_and_with_another_partner_each_epoch():
    digits = data.load("digits")
    both = data.paired(digits, digits)
    first, second = (both.train.batch(np.arange(1500), epoch=epoch)["x0"] for epoch in (0, 1))
    assert np.any(first != second)
    np.testing.assert_array_equal(first[:7], both.train.batch(np.arange(7))["x0"])
    np.testing.assert_allclose(first.mean(0), digits.train.batch(np.arange(1500))["x1"].mean(0), atol=0.15)


def test_sources_of_another_shape_are_refused():
    with pytest.raises(UsageError, match=r"data.source has examples of shape \(2,\), and the data of \(8, 8, 1\)"):
        data.paired(data.load("digits"), data.load("moons"))


def test_generation_starts_from_the_second_data_set_and_zero_velocity_stays_there():
    exp = experiment.build(two_sets())
    params = small_runs.zeros(exp)
    program = generate.program(exp, batch_size=160)
    made = generate.samples(exp, program, params, steps=2, seed=5, num_samples=300).x
    moons = data.draw(data.load("moons").test, np.arange(300), 5)
    np.testing.assert_allclose(made, moons, atol=1e-6)
    ((_, path),) = generate.trajectories(exp, {2: params}, seed=5, num_samples=8)
    np.testing.assert_allclose(path[0], moons[:8], atol=1e-6)


def test_the_step_takes_x0_from_the_batch():
    """With x0 of the data, the loss of a model that predicts nothing is E |x1 - x0|^2 + E |z|^2."""
    config = two_sets(train__batch_size=4096)
    exp = experiment.build(config)
    state = experiment.init(exp).replace(params={"student": small_runs.zeros(exp)})
    state = jax.device_put(state, experiment.state_shardings(exp))
    batch = exp.dataset.train.batch(np.arange(4096))
    _, measured = experiment.train_step(exp)(state, experiment.global_batch(exp, batch))
    expected = np.mean(np.sum((batch["x1"] - batch["x0"]) ** 2, axis=1))
    np.testing.assert_allclose(measured["velocity"], expected, rtol=1e-5)
    np.testing.assert_allclose(measured["latent"], 2, atol=0.15)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"sample__solver": "ancestral"}, "ancestral needs the score, which the velocity tells for a Gaussian source"),
        ({"sample__sampler": "renoising"}, "renoising needs the score, which the velocity tells for a Gaussian source"),
        ({"sample__solver": "euler_maruyama", "data__name": "checker"}, "at time 0, where it is infinite"),
        ({"prediction__name": "v"}, "reads its network itself: set prediction.name to 'velocity'"),
        ({"network__name": "log_variance"}, "network 'log_variance' has one output, and this method reads 2"),
    ],
)
def test_what_an_interpolant_cannot_do_is_one_line(fields, message):
    with pytest.raises(UsageError, match=message):
        exp = experiment.build(two_sets(**fields))
        generate.samples(
            exp, generate.program(exp, batch_size=16), small_runs.zeros(exp), steps=2, seed=0, num_samples=16
        )


def test_likelihoods_of_another_source_are_refused():
    """The ODE's needs its density, the chain's bound that the velocity tells the score, as it does without a latent."""
    with pytest.raises(UsageError, match="metric 'nll' needs a Gaussian source, which this run has not"):
        evaluate.check(experiment.build(two_sets(eval__metrics=("nll",))))
    config = small_runs.digits(eval__metrics=("bound",))
    config.method = base.part(base.methods, "stochastic_interpolant")
    with pytest.raises(UsageError, match="metric 'bound' needs a Gaussian source alone, independent of the data"):
        evaluate.check(experiment.build(config))


def test_a_run_of_one_output_cannot_start_it(tmp_path):
    small_runs.save(small_runs.plane(), tmp_path)
    exp = experiment.build(two_sets(init_from=str(tmp_path)))
    with pytest.raises(UsageError, match="its network has 1 outputs, and this method reads 2"):
        experiment.init(exp)
