"""Implicit maximum likelihood: expectations over draws in closed form, and gradients through the nearest alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps import interpolants, methods, rows
from flowmaps.errors import UsageError
from flowmaps.methods import imle
from flowmaps.types import Roles

PATH = interpolants.linear()
KEYS = rows.keys(jax.random.key(0), 0, 8192)
ZERO = jnp.zeros((len(KEYS), 1))
SIGN = jnp.where(jnp.arange(len(KEYS)) % 2 == 0, 1.0, -1.0)[:, None]
"""The examples 1 and -1 by turns."""


def loss(generator, examples, *, label=None, keys=KEYS, **options):
    """Of each row, or set, for G(z, label)."""
    made = methods.load("imle").make(interpolant=PATH, total_steps=10, **options)

    def velocity(x, s, t, cond, *, dropout=None):
        return generator(x, *cond.values()) - x

    batch = {"x1": examples, "x0": examples} | ({} if label is None else {"label": label})
    return made.losses["student"](Roles(velocity, velocity), batch, keys, jnp.zeros((), jnp.int32)).per_example


@pytest.mark.parametrize("draws", [1, 2, 4, 8])
def test_of_two_points_a_perfect_generator_misses_one_in_two_to_the_m(draws):
    """Examples +-1 and G(z) = sign z: the loss is 4 where all m draws have the other sign, 4 / 2^m in the mean."""
    found = loss(jnp.sign, SIGN, draws=draws)
    assert set(np.unique(found)) == {0.0, 4.0}
    np.testing.assert_allclose(found.mean(), 4 * 2**-draws, atol=4 * float(found.std()) / len(KEYS) ** 0.5)


@pytest.mark.parametrize(("draws", "expected"), [(1, 1.0), (4, 0.122), (16, 0.0104), (64, 0.00072)])
def test_the_nearest_of_m_normal_draws_is_as_near_as_order_statistics_say(draws, expected):
    """E min_j z_j^2."""
    found = loss(lambda x: x, ZERO, draws=draws)
    np.testing.assert_allclose(found.mean(), expected, rtol=0.01, atol=4 * float(found.std()) / len(KEYS) ** 0.5)


def test_with_one_draw_it_rests_at_the_mean_and_with_many_at_the_points():
    """Examples +-1. G = c has the loss 1 + c^2. G(z) = a sign z: with one draw (a - 1)^2 / 2 + (a + 1)^2 / 2, least at
    a = 0, and with 16 (a - 1)^2 but for one row in 2^16."""
    constant = jax.grad(lambda c: loss(lambda x: 0 * x + c, SIGN, draws=1).mean())
    np.testing.assert_allclose([constant(0.0), constant(0.3)], [0, 0.6], atol=1e-6)

    def slope(a, draws):
        return jax.grad(lambda a: loss(lambda x: a * jnp.sign(x), SIGN, draws=draws).mean())(a)

    np.testing.assert_allclose([slope(0.5, 1), slope(1.0, 1)], [1, 2], atol=0.1)
    np.testing.assert_allclose([slope(0.5, 16), slope(1.0, 16)], [-1, 0], atol=2e-3)


@pytest.mark.parametrize("at_once", [1, 3, 7])
def test_how_many_draws_are_looked_at_at_once_changes_nothing(at_once):
    examples = rows.normal(rows.fold(KEYS, 7), (1,))[:64]
    found, all_ = (
        loss(jnp.tanh, examples, draws=7, radius=0.01, at_once=number, keys=KEYS[:64]) for number in (at_once, 16)
    )
    np.testing.assert_array_equal(found, all_)


def test_draws_within_the_radius_are_passed_over_unless_all_are():
    """Of draws of |z| >= 1/2 alone the nearest of 16 is near to 1/2."""
    found = loss(lambda x: x, ZERO, draws=16, radius=0.5)
    assert found.min() >= 0.25 and jnp.median(found) < 0.35
    everything, plain = (loss(lambda x: 0.01 * x, ZERO, draws=16, radius=radius) for radius in (0.5, 0.0))
    np.testing.assert_array_equal(everything, plain)
    columns = jnp.array([[1.0, 9.0, 1.0], [5.0, 4.0, 2.0]])
    np.testing.assert_array_equal(imle.nearest(columns, 2.0), [1, 1, 0])


@pytest.mark.float64
def test_the_chamfer_distance_by_hand():
    """Sets {0, 3} and {1, 7}: squared distances to the nearest 1, 4 and 1, 16. In classes of one point 1 and 16."""
    one, other = jnp.array([[[0.0], [3.0]]]), jnp.array([[[1.0], [7.0]]])
    all_, own = jnp.ones((1, 2, 2), bool), jnp.eye(2, dtype=bool)[None]
    np.testing.assert_allclose(imle.chamfer(one, other, all_), [((1 + 4) / 2 + (1 + 16) / 2) / 2])
    np.testing.assert_allclose(imle.chamfer(one, other, own), [(1 + 16) / 2])
    np.testing.assert_allclose(imle.chamfer(one, one[:, ::-1], all_), [0])
    np.testing.assert_allclose(imle.chamfer(one[:, :1], other[:, 1:], all_[:, :1, :1]), [49])


def test_a_set_is_found_in_any_order_and_points_of_a_label_among_themselves():
    """Pairs of examples (1, -1) and G(z) = sign z: nothing is lost where the two draws differ, whichever comes first,
    and where they agree one of the four points is 4 away from its nearest. A G that takes each label for the other has
    all of them there."""
    found = loss(jnp.sign, SIGN, draws=1, set_size=2)
    values, counts = np.unique(np.asarray(found), return_counts=True)
    np.testing.assert_array_equal(values, [0, 4 / 4])
    np.testing.assert_allclose(counts / (len(KEYS) // 2), 0.5, atol=0.03)
    label = jnp.arange(len(KEYS)) % 2

    def exchanged(x, label):
        return jnp.where(label == 0, -1.0, 1.0)[:, None] + 0 * x

    np.testing.assert_allclose(loss(exchanged, SIGN, draws=2, set_size=2, label=label), 4, rtol=1e-6)


def test_what_cannot_be_is_refused():
    with pytest.raises(UsageError, match=r"method.draws=0"):
        loss(jnp.sign, SIGN, draws=0)
    with pytest.raises(UsageError, match=r"8192 rows is not made of sets of 3"):
        loss(jnp.sign, SIGN, set_size=3)
