"""Distribution matching: a linear generator against a Gaussian in closed form, its own states, and the players."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps import interpolants, methods, rows
from flowmaps.errors import UsageError
from flowmaps.methods import dmd2
from flowmaps.types import Roles

MEAN, STD, TIME = 0.4, 0.7, 0.6
KEYS = rows.keys(jax.random.key(0), 0, 20_000)
STEP = jnp.zeros((), jnp.int32)


class Line:
    """Gaussian laws on a line times `unit`, or on `size` of them, on the path whose noise is as much wider."""

    def __init__(self, unit=1.0, size=1):
        self.path, self.unit = interpolants.variance_exploding(source_std=unit), unit
        self.noise = rows.normal(rows.fold(KEYS, 9), (size,))

    def generator(self, a, b):
        """X_{s,1}: the noise in x, x / sigma(s), becomes a z + b, at every s where x is of noise alone."""

        def velocity(x, s, t, cond, *, dropout=None):
            return (a * x / self.path.beta.value(s)[:, None] + self.unit * b - x) / (t - s)[:, None]

        return velocity

    def denoiser(self, mean, std):
        """The exact velocity of N(mean, std^2)."""

        def velocity(x, s, t, cond, *, dropout=None):
            sigma = self.path.beta.value(s)[:, None]
            slope = self.path.beta.slope(s)[:, None]
            return slope * sigma * (x - self.unit * mean) / (std**2 + sigma**2)

        return velocity

    def roles(self, theta, fake=None, critic=None, others=None):
        theta_of_others = jax.lax.stop_gradient(theta) if others is None else others
        extras = {"fake": self.denoiser(*(theta_of_others[::-1] if fake is None else fake))}
        if critic is not None:
            extras |= {"critic": critic, "inside_fake": lambda x, t, cond: (extras["fake"](x, t, t, cond),)}
        return Roles(self.generator(*theta), self.generator(*theta_of_others), self.denoiser(MEAN, STD), extras)

    def batch(self, a=STD, b=MEAN):
        """Pairs of a noise and what the generator (a, b) makes of it."""
        return {"x0": self.unit * self.noise, "x1": self.unit * (a * self.noise + b)}

    def make(self, name="dmd", between=(TIME, TIME), **options):
        return methods.load(name).make(interpolant=self.path, total_steps=10, between=between, **options)

    def slope(self, name, theta, *, fake=None, **options):
        method = self.make(name, **options)

        def loss(theta):
            roles = self.roles(theta, fake)
            return method.losses["student"](roles, self.batch(), KEYS, STEP).per_example.mean()

        return np.asarray(jax.jit(jax.grad(loss))(jnp.asarray(theta)))


LINE = Line()
PLAIN = {"adversarial": 0.0, "critic_weight": 0.0}


@pytest.mark.parametrize(("name", "options"), [("dmd", {}), ("dmd2", PLAIN)])
@pytest.mark.parametrize("weighting", ["error", "level", "likelihood"])
def test_the_student_rests_at_the_law_of_the_data(name, options, weighting):
    """Beside a fake that knows its samples: D' = D, and the pairs are what it makes."""
    np.testing.assert_allclose(LINE.slope(name, (STD, MEAN), weighting=weighting, **options), 0, atol=1e-8)


def test_two_time_scales_make_the_gradient_of_the_divergence():
    """d/db = (b - m) / (S^2 + sigma^2), d/da = a / (S^2 + sigma^2) - a / (a^2 + sigma^2) beside a fake that kept up."""
    sigma = float(LINE.path.sigma(jnp.asarray(TIME)))
    a, b, total = 0.4, 0.1, STD**2 + sigma**2
    expected = [a / total - a / (a**2 + sigma**2), (b - MEAN) / total]
    found = LINE.slope("dmd2", (a, b), weighting="likelihood", **PLAIN)
    np.testing.assert_allclose(found, expected, atol=0.01)


def test_the_weight_by_the_error_knows_no_scale():
    """Data, samples and networks in other units leave the gradient in the samples as it is."""
    plain, wide = (Line(unit, 16).slope("dmd2", (0.4, 0.1), weighting="error", **PLAIN) for unit in (1.0, 50.0))
    np.testing.assert_allclose(wide, 50 * plain, rtol=1e-3)


@pytest.mark.parametrize("size", [1, 16])
def test_the_regression_asks_for_the_pairs(size):
    """With the fake equal to the teacher it is all there is: its gradient is that of E |(a - S) z + b - m|^2, the mean
    over a row's numbers."""
    line = Line(size=size)
    found = line.slope("dmd", (0.4, 0.1), fake=(MEAN, STD), regression=0.5)
    second, first = float((line.noise**2).mean()), float(line.noise.mean())
    expected = [(0.4 - STD) * second + (0.1 - MEAN) * first, (0.4 - STD) * first + 0.1 - MEAN]
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_regression_of_no_weight_is_refused():
    with pytest.raises(UsageError, match=r"method.regression=0.0 must be above 0; method 'dmd2' does without"):
        LINE.make(regression=0.0)


@pytest.mark.parametrize("options", [{"steps": 0}, {"adversarial": 0.0}, {"critic_weight": 0.0}, {"adversarial": -1.0}])
def test_halves_of_a_critic_are_refused(options):
    with pytest.raises(UsageError, match=r"must be at least 1, and method.adversarial=.* both above 0, or both 0"):
        LINE.make("dmd2", **options)


def sharp(x, s, t, cond, *, dropout=None):
    """Of the law N(MEAN, STD^2): a map to the end that draws from it whatever it is given, by the noise in x alone."""
    sigma = LINE.path.sigma(s)[:, None]
    made = MEAN + STD * (x - MEAN) / jnp.sqrt(STD**2 + sigma**2)
    return (made - x) / (t - s)[:, None]


def test_own_states_are_those_of_its_sampling():
    """A student of the right law has states of the laws of x_t: variance S^2 + sigma^2, at the times of equal steps."""
    x0 = LINE.noise * jnp.sqrt(1 + (STD / 80) ** 2) + MEAN / 80  # the prior of the data's own law
    x, s = dmd2.own_state(sharp, LINE.path, x0, 4, KEYS, {})
    for k in range(4):
        rows_ = np.asarray(s) == np.float32(k / 4)
        sigma = float(LINE.path.sigma(jnp.asarray(k / 4)))
        assert abs(rows_.mean() - 0.25) < 0.02
        np.testing.assert_allclose(np.asarray(x)[rows_].std(), np.hypot(STD, sigma), rtol=0.05)


def test_one_step_begins_with_noise():
    x, s = dmd2.own_state(sharp, LINE.path, LINE.noise, 1, KEYS, {})
    np.testing.assert_array_equal(x, LINE.path.start(LINE.noise))
    assert np.all(s == 0)


def gradients_of(player, steps=1):
    """By the parameters of the student, its stopped copy, the fake and the critic."""
    method = LINE.make("dmd2", steps=steps)

    def loss(theta, copy, fake, direction):
        roles = LINE.roles(theta, fake, lambda maps, t, cond: maps[0] * direction, others=copy)
        return method.losses[player](roles, LINE.batch(), KEYS, STEP).per_example.mean()

    point = (jnp.asarray([0.4, 0.1]), jnp.asarray([0.4, 0.1]), jnp.asarray([0.2, 0.5]), jnp.asarray(0.3))
    return jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3)))(*point)


def test_the_critic_trains_the_fake_that_it_looks_into():
    student, copy, fake, critic = gradients_of("fake")
    assert np.all(student == 0) and np.all(copy == 0) and np.all(fake != 0) and critic != 0


def test_the_students_own_rollout_is_stopped():
    """The gradient flows through its last jump alone."""
    student, copy, *_ = gradients_of("student", steps=3)
    assert np.all(student != 0) and np.all(copy == 0)
