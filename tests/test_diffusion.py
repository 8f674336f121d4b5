"""Diffusion's minima in closed form, and its weightings as the ratios that their papers give."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps import closed_forms, interpolants, methods, predictions, rows
from flowmaps.errors import UsageError
from flowmaps.types import Roles

pytestmark = pytest.mark.float64

STD, COUNT = 0.6, 200_000


def loss(path, velocity, *, level, **options):
    """Of each of many rows at one noise level, a dimension."""
    method = methods.load("diffusion").make(
        interpolant=path, total_steps=1, law=("log_normal", float(np.log(level)), 0.0), **options
    )
    keys = rows.keys(jax.random.key(0), 0, COUNT)
    batch = {"x0": rows.normal(rows.fold(keys, 8), (1,)), "x1": STD * rows.normal(rows.fold(keys, 9), (1,))}
    return method.losses["student"](Roles(velocity, velocity), batch, keys, jnp.zeros((), jnp.int32))


def exact(path):
    oracle = closed_forms.gaussian(jnp.zeros(1), jnp.full((1, 1), STD**2), path)
    return lambda x, s, t, cond, *, dropout=None: oracle.velocity(x, s)


@pytest.mark.parametrize("level", [0.1, 1.0, 5.0])
@pytest.mark.parametrize(
    "path", ["variance_exploding", "variance_preserving", "trigonometric", "sub_variance_preserving"]
)
def test_denoising_cannot_fall_below_the_posteriors_variance(path, level):
    """The mean noise residual of the exact denoiser is S^2 / (S^2 + sigma^2): DSM's floor."""
    path = interpolants.make(path)
    value = loss(path, exact(path), level=level).per_example
    error = 4 * value.std() / COUNT**0.5
    np.testing.assert_allclose(value.mean(), STD**2 / (STD**2 + level**2), atol=error)


@pytest.mark.parametrize("level", [0.02, 0.5, 20.0])
def test_edms_loss_is_one_at_every_level_for_a_zero_network(level):
    """With the data's own deviation F is zero: a fresh network is at the minimum, and its gradient is zero."""
    path = interpolants.variance_exploding()

    def value(theta):
        def raw(x, s, t, cond, *, dropout=None):
            return theta[0] * x + theta[1] * jnp.cos(x)

        velocity = predictions.make("edm", interpolant=path, data_std=STD)(raw)
        return loss(path, velocity, level=level, weighting="edm", data_std=STD).per_example.mean()

    mean, gradient = jax.value_and_grad(value)(jnp.zeros(2))
    np.testing.assert_allclose(mean, 1, atol=4 * 2**0.5 / COUNT**0.5)
    np.testing.assert_allclose(gradient, 0, atol=4 * 2 / COUNT**0.5)


@pytest.mark.parametrize("level", [0.3, 1.0, 3.0])
def test_weightings_are_their_papers_functions_of_the_snr(level):
    """On any path, as multiples of the data residual's square."""
    snr = 1 / level**2
    expected = {
        "constant": 1.0,
        "snr": snr,
        "truncated_snr": max(snr, 1.0),
        "snr_plus_one": snr + 1,
        "min_snr": min(snr, 5.0),
        "edm": (level**2 + STD**2) / (level * STD) ** 2,
    }
    path = interpolants.trigonometric()
    base = loss(path, exact(path), level=level, weighting="constant").per_example
    for name, ratio in expected.items():
        value = loss(path, exact(path), level=level, weighting=name, data_std=STD).per_example
        np.testing.assert_allclose(value, ratio * base, rtol=1e-8)


def test_the_snr_is_in_units_of_x():
    """A wider source at the same noise level leaves every weighted loss of the exact denoiser as it is."""
    for name in ("snr", "truncated_snr", "snr_plus_one", "min_snr", "edm"):
        values = []
        for source_std in (1.0, 2.0):
            path = interpolants.trigonometric(source_std=source_std)
            method = methods.load("diffusion").make(
                interpolant=path, total_steps=1, law=("log_normal", -0.5, 0.0), weighting=name, data_std=STD
            )
            keys = rows.keys(jax.random.key(0), 0, 1000)
            noise = rows.normal(rows.fold(keys, 8), (1,))
            batch = {"x0": source_std * noise, "x1": STD * rows.normal(rows.fold(keys, 9), (1,))}
            student = exact(path)
            loss_ = method.losses["student"](Roles(student, student), batch, keys, jnp.zeros((), jnp.int32))
            values.append(loss_.per_example)
        np.testing.assert_allclose(*values, rtol=1e-6)


def test_the_likelihoods_weight_is_the_squared_diffusion():
    """g^2 |score error|^2 with g^2 = beta(t) of the VP SDE: N's weight is g^2 / sigma^2."""
    path, level = interpolants.variance_preserving(), 0.7
    t = path.time_of_level(jnp.full(1, level))
    g2 = 0.1 + 19.9 * (1 - t)
    weighted, plain = (
        loss(path, exact(path), level=level, weighting=name).per_example for name in ("likelihood", "snr")
    )
    np.testing.assert_allclose(weighted, g2 / path.beta.value(t) ** 2 * plain, rtol=1e-6)


def test_flow_matchings_floor_is_the_conditional_variance():
    path = interpolants.linear()
    method = methods.load("flow_matching").make(interpolant=path, total_steps=1)
    keys = rows.keys(jax.random.key(0), 0, COUNT)
    batch = {"x0": rows.normal(rows.fold(keys, 8), (1,)), "x1": STD * rows.normal(rows.fold(keys, 9), (1,))}
    velocity = exact(path)
    value = method.losses["student"](Roles(velocity, velocity), batch, keys, jnp.zeros((), jnp.int32)).per_example
    t = np.linspace(0, 1, 10_001)
    q2 = (t * STD) ** 2 + (1 - t) ** 2
    floor = np.trapezoid(STD**2 + 1 - (t * STD**2 - (1 - t)) ** 2 / q2, t)
    np.testing.assert_allclose(value.mean(), floor, atol=4 * float(value.std()) / COUNT**0.5)


def test_log_normal_levels():
    path = interpolants.variance_exploding()
    from flowmaps import times

    t = times.on_path(path, "log_normal", -1.2, 1.2)(rows.keys(jax.random.key(0), 0, 20_000))
    logs = np.log(path.beta.value(t))
    np.testing.assert_allclose([logs.mean(), logs.std()], [-1.2, 1.2], atol=0.03)


def test_an_unknown_weighting_is_told_the_nearest():
    with pytest.raises(UsageError, match="unknown weighting of method diffusion 'srn': did you mean 'snr'"):
        from flowmaps import lookup

        make = methods.load("diffusion").make
        lookup.call(
            "method diffusion", make, {"interpolant": interpolants.linear(), "total_steps": 1}, {"weighting": "srn"}
        )
