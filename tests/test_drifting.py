"""The drift field: antisymmetric, zero at equal points, blind to other classes; and the loss that follows it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps import interpolants, methods, rows
from flowmaps.errors import UsageError
from flowmaps.methods import drifting
from flowmaps.types import Roles

PATH = interpolants.linear()
TEMPERATURE = 0.3


def points(seed, count=6, size=2):
    return jnp.asarray(np.random.default_rng(seed).normal(size=(count, size)))


def weighed(x, points, weights):
    """The drift of x by points whose weights are the same for all samples."""
    weights = jnp.broadcast_to(jnp.asarray(weights, x.dtype), (len(x), len(points)))
    return drifting.drift(drifting.distances(x, points), points, weights, TEMPERATURE)


def drift(x, positives, negatives):
    return weighed(x, jnp.concatenate([positives, negatives]), [[1.0] * len(positives) + [-1.0] * len(negatives)])


@pytest.mark.float64
def test_the_field_is_antisymmetric():
    x, one, other = points(0), points(1), points(2, 4)
    np.testing.assert_allclose(drift(x, one, other), -drift(x, other, one), atol=1e-12)
    assert np.abs(drift(x, one, other)).max() > 1e-3


@pytest.mark.float64
def test_the_field_is_zero_where_both_are_the_same_points():
    """In any order, and for points of any weight, which it splits evenly."""
    x, one = points(0), points(1)
    np.testing.assert_allclose(drift(x, one, one[::-1]), 0, atol=1e-15)
    np.testing.assert_allclose(drift(one, one, one), 0, atol=1e-15)
    np.testing.assert_allclose(
        weighed(x, jnp.concatenate([one, one]), [[1.0, 2, 3] * 2 + [-2.0, -4, -6] * 2]), 0, atol=1e-15
    )


@pytest.mark.float64
def test_a_guided_class_rests_beyond_its_data():
    """At w (its data) - (w - 1) (all data): of two points a class has 3/4 and 1/4 and all data 1/2 and 1/2, so for
    w = 2 its samples are at the first alone."""
    one, other = points(1, 1), points(2, 1)
    seen = jnp.concatenate([one, other, one, one, other])
    of_data, of_samples, of_all = [0.75, 0.25], [-1.0], [-0.5, -0.5]
    np.testing.assert_allclose(weighed(points(0), seen, [of_data + of_samples + of_all]), 0, atol=1e-15)


@pytest.mark.float64
def test_the_field_is_its_double_sum():
    """But for the affinities below 1e-3, which count as that."""
    x, positives, negatives = points(0), points(1, 4), points(2, 5)
    both = jnp.concatenate([positives, negatives])
    logits = -jnp.linalg.norm(x[:, None] - both[None], axis=-1) / TEMPERATURE
    affinity = jnp.sqrt(jax.nn.softmax(logits, axis=1) * jax.nn.softmax(logits, axis=0))
    affinity = jnp.maximum(affinity, 1e-3)
    expected = [
        sum(affinity[i, j] * affinity[i, 4 + k] * (positives[j] - negatives[k]) for j in range(4) for k in range(5))
        for i in range(len(x))
    ]
    np.testing.assert_allclose(drift(x, positives, negatives), jnp.stack(expected), atol=1e-14)


@pytest.mark.float64
def test_what_has_no_weight_is_not_seen():
    """Nor does a sample feel anything that sees nothing."""
    x, positives, negatives = points(0), points(1, 4), points(2, 5)
    both = jnp.concatenate([positives, negatives])
    masked = weighed(x, both, [[1.0, 1, 0, 0, -1, 0, -1, 0, -1]])
    np.testing.assert_allclose(masked, drift(x, positives[:2], negatives[::2]), atol=1e-14)
    np.testing.assert_array_equal(weighed(x, both, [[0.0] * 9]), 0)


KEYS = rows.keys(jax.random.key(0), 0, 128)


def mean_loss(generator, batch, **options):
    """Of G(z, label)."""
    made = methods.load("drifting").make(interpolant=PATH, total_steps=10, **options)

    def velocity(x, s, t, cond, *, dropout=None):
        return generator(x, *cond.values()) - x

    return made.losses["student"](Roles(velocity, velocity), batch, KEYS, jnp.zeros((), jnp.int32)).per_example.mean()


def test_the_loss_is_half_the_squared_field_in_units_of_the_distance():
    """One temperature's field has a root mean square of 1, whatever the scale: the loss is 1 / 2, and as S grows its
    gradient falls."""
    batch = {"x0": rows.normal(rows.fold(KEYS, 1), (2,)), "x1": 2 + rows.normal(rows.fold(KEYS, 2), (2,))}
    larger = {name: 10 * x for name, x in batch.items()}

    @jax.value_and_grad
    def at(shift, batch):
        return mean_loss(lambda x: x + shift, batch, temperatures=(0.2,))

    (value, slope), (_, gentler) = at(0.0, batch), at(0.0, larger)
    np.testing.assert_allclose(value, 0.5, rtol=1e-5)
    np.testing.assert_allclose(10 * gentler, slope, rtol=1e-5)


def test_samples_move_to_the_examples():
    """Of a shifted and of a narrow or wide generator of a Gaussian the gradient points back."""
    many = rows.keys(jax.random.key(1), 0, 128)
    batch = {"x0": rows.normal(rows.fold(many, 0), (2,)), "x1": rows.normal(rows.fold(many, 1), (2,))}
    slope = jax.jit(jax.grad(lambda theta: mean_loss(lambda x: theta[0] * x + theta[1], batch)))
    assert slope(jnp.array([1.0, 1.0]))[1] > 0.3 and slope(jnp.array([1.0, -1.0]))[1] < -0.3
    assert slope(jnp.array([0.3, 0.0]))[0] < -0.3 < 0.3 < slope(jnp.array([2.5, 0.0]))[0]


def two_classes():
    """Examples around +3 of class 0 and around -3 of class 1, and the noise of generators at 0."""
    label = jnp.arange(128, dtype=jnp.int32) % 2
    noise = 0.1 * rows.normal(KEYS, (2,))
    return {"x0": noise, "x1": jnp.where(label == 0, 3.0, -3.0)[:, None] + noise[::-1], "label": label}


def by_class(theta):
    return lambda x, label: x + theta * jnp.where(label == 0, 1.0, -1.0)[:, None]


def test_a_class_drifts_to_its_own_examples():
    """Theta times the class's side: from 0 to 3, and back from 6."""
    slope = jax.grad(lambda theta: mean_loss(by_class(theta), two_classes()))
    assert slope(0.0) < -0.3 < 0.3 < slope(6.0)


def test_guidance_drives_classes_apart():
    """Where a class rests without it, examples of the other one repel it: theta grows."""

    def slope(guidance):
        return jax.grad(lambda theta: mean_loss(by_class(theta), two_classes(), guidance=guidance))(3.0)

    assert abs(slope(1.0)) < 0.1 and slope(2.0) < -0.1


def test_what_cannot_be_is_refused():
    batch = two_classes()
    with pytest.raises(UsageError, match=r"method.guidance=2.0 needs labels"):
        mean_loss(lambda x: x, {"x0": batch["x0"], "x1": batch["x1"]}, guidance=2.0)
    with pytest.raises(UsageError, match="128 rows is not made of groups of 48"):
        mean_loss(by_class(0.0), batch, group=48)
    with pytest.raises(UsageError, match=r"method.group=1 must be at least 2"):
        mean_loss(by_class(0.0), batch, group=1)
