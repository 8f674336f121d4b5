"""Score distillation of a linear generator against a Gaussian: the gradients in closed form, and where they rest."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps import interpolants, methods, rows
from flowmaps.errors import UsageError
from flowmaps.types import Roles

PATH = interpolants.variance_exploding()
MEAN, STD = 0.4, 0.7
TIME = 0.6
SIGMA = float(PATH.sigma(jnp.asarray(TIME)))
KEYS = rows.keys(jax.random.key(0), 0, 20_000)
BATCH = {"x0": rows.normal(rows.fold(KEYS, 9), (1,)), "x1": jnp.zeros((len(KEYS), 1))}


def generator(a, b):
    """X_{0,1}(80 z) = a z + b."""

    def velocity(x, s, t, cond, *, dropout=None):
        return a * x / PATH.sigma(s)[:, None] + b - x

    return velocity


def denoiser(mean, std):
    """The exact velocity of N(mean, std^2) on the path."""

    def velocity(x, s, t, cond, *, dropout=None):
        sigma = PATH.sigma(s)[:, None]
        return PATH.beta.slope(s)[:, None] * sigma * (x - mean) / (std**2 + sigma**2)

    return velocity


def gradient(a, b, *, fake=None, **options):
    """Of the student's loss in (a, b), beside an exact fake denoiser of a z + b, or of another law."""
    made = methods.load("score_distillation").make(interpolant=PATH, total_steps=10, between=(TIME, TIME), **options)
    fake = (b, a) if fake is None else fake

    def loss(theta):
        roles = Roles(generator(*theta), generator(a, b), denoiser(MEAN, STD), {"fake": denoiser(*fake)})
        return made.losses["student"](roles, BATCH, KEYS, jnp.zeros((), jnp.int32)).per_example.mean()

    return np.asarray(jax.jit(jax.grad(loss))(jnp.asarray([a, b])))


@pytest.mark.parametrize(("a", "b"), [(0.4, 0.1), (1.1, -0.3), (0.7, 0.4), (-0.7, 0.4)])
def test_vsd_has_the_gradient_of_the_divergence(a, b):
    """d/db = (b - m) / (S^2 + sigma^2), d/da = a / (S^2 + sigma^2) - a / (a^2 + sigma^2): zero at (+-S, m) alone."""
    total = STD**2 + SIGMA**2
    expected = [a / total - a / (a**2 + SIGMA**2), (b - MEAN) / total]
    np.testing.assert_allclose(gradient(a, b, weighting="likelihood"), expected, atol=0.01)


def test_vsd_with_a_stale_fake_is_biased_by_what_it_missed():
    """With the fake of a' the gradient in a has a / (a'^2 + sigma^2) in its second term."""
    total, a, stale = STD**2 + SIGMA**2, 0.7, 0.4
    expected = a / total - a / (stale**2 + SIGMA**2)
    np.testing.assert_allclose(gradient(a, MEAN, fake=(MEAN, stale), weighting="likelihood")[0], expected, atol=0.01)
    assert expected < -0.1  # it pushes away from the law although the student is there


def test_sds_collapses_to_the_mode():
    """d/da = a / (S^2 + sigma^2): at rest at a = 0, the mean, and nowhere else."""
    for a in (0.4, STD, 1.1):
        np.testing.assert_allclose(
            gradient(a, MEAN, objective="sds", weighting="likelihood"), [a / (STD**2 + SIGMA**2), 0], atol=0.02
        )
    np.testing.assert_allclose(gradient(0.0, MEAN, fake=(0, 1), objective="sds", weighting="likelihood"), 0, atol=0.02)


def test_sid_rests_at_the_law_and_returns_to_it():
    narrow, there, wide = (gradient(a, MEAN, objective="sid")[0] for a in (0.4, STD, 1.1))
    assert narrow < -0.05 and abs(there) < 1e-5 and wide > 0.05
    assert gradient(STD, MEAN + 0.3, objective="sid")[1] > 0.02 > -0.02 > gradient(STD, MEAN - 0.3, objective="sid")[1]


@pytest.mark.parametrize("objective", ["vsd", "sid"])
def test_the_fakes_loss_moves_the_fake_alone(objective):
    """Not the student, whose samples it learns, nor the teacher."""
    made = methods.load("score_distillation").make(interpolant=PATH, total_steps=10, objective=objective)

    def losses(theta, phi, psi, player):
        student, target = generator(*theta), generator(*jax.lax.stop_gradient(theta))
        extras = {"fake": denoiser(*psi)}
        roles = Roles(student, target, denoiser(*phi), extras)
        return made.losses[player](roles, BATCH, KEYS, jnp.zeros((), jnp.int32)).per_example.mean()

    point = (jnp.asarray([0.4, 0.1]), jnp.asarray([MEAN, STD]), jnp.asarray([0.2, 0.5]))
    of_fake = jax.grad(losses, argnums=(0, 1, 2))(*point, "fake")
    assert np.all(of_fake[0] == 0) and np.all(of_fake[1] == 0) and np.all(of_fake[2] != 0)


def test_the_fake_rests_at_the_law_of_the_samples():
    made = methods.load("score_distillation").make(interpolant=PATH, total_steps=10)

    def loss(psi):
        roles = Roles(generator(0.5, 0.2), generator(0.5, 0.2), denoiser(MEAN, STD), {"fake": denoiser(*psi)})
        return made.losses["fake"](roles, BATCH, KEYS, jnp.zeros((), jnp.int32)).per_example.mean()

    slope = jax.jit(jax.grad(loss))
    np.testing.assert_allclose(slope(jnp.asarray([0.2, 0.5])), 0, atol=0.03)
    assert slope(jnp.asarray([0.4, 0.5]))[0] > 0.1 and slope(jnp.asarray([0.2, 0.8]))[1] > 0.1


def test_a_weight_without_a_bound_is_refused():
    """At the end of the linear path there is no noise to weigh by."""
    options = {"interpolant": interpolants.linear(), "total_steps": 10, "weighting": "likelihood"}
    with pytest.raises(UsageError, match=r"method.weighting='likelihood' has no bound at the end of this path, where"):
        methods.load("score_distillation").make(**options)
    methods.load("score_distillation").make(**options, between=(0.2, 0.95))
