"""Perceptual distances: the formula, and the losses that have one at their rest points and away from them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps import interpolants, methods, rows, times, weightings
from flowmaps.errors import UsageError
from flowmaps.rows import expand
from flowmaps.solvers import steps
from flowmaps.types import Roles

SHAPE = (4, 4, 3)
KEYS = rows.keys(jax.random.key(0), 0, 64)


def with_heads(maps):
    """As a bound network gives its maps."""
    maps.heads = maps
    return maps


@with_heads
def linear_features(x):
    """Two maps of an image, linear in it: mixtures of its channels, and of its rows."""
    return x @ (jnp.eye(3, 5) + 0.3), jnp.einsum("bhwc,hk->bkwc", x, jnp.tri(4))


def images(stream):
    return rows.normal(rows.fold(KEYS, stream), SHAPE)


@pytest.mark.float64
def test_the_distance_is_lpips_without_weights():
    """Of unit vectors |a - b|^2 = 2 - 2 cos, its mean over the places of a map, and the sum of two maps."""
    one, other = images(0), images(1)
    expected = np.zeros(len(KEYS))
    for a, b in zip(linear_features(one), linear_features(other), strict=True):
        a, b = np.asarray(a), np.asarray(b)
        lengths = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
        expected += (2 - 2 * np.sum(a * b, axis=-1) / lengths).mean(axis=(1, 2))
    np.testing.assert_allclose(weightings.perceptual(linear_features, one, other), expected, rtol=1e-12)


@pytest.mark.float64
def test_the_distance_knows_no_scale_of_a_map():
    def louder(x):
        first, second = linear_features(x)
        return 7 * first, 0.01 * second

    pair = images(0), images(1)
    np.testing.assert_allclose(
        weightings.perceptual(louder, *pair), weightings.perceptual(linear_features, *pair), rtol=1e-12
    )


@pytest.mark.parametrize("rectified", [False, True])
def test_of_one_image_with_itself_distance_and_gradient_are_zero(rectified):
    """To the bit, also where a rectified map has nothing: at the image -1."""

    def maps(x):
        return tuple(jax.nn.relu(m) for m in linear_features(x)) if rectified else linear_features(x)

    x = jnp.concatenate([images(0), -jnp.ones((1, *SHAPE))])
    value, slope = jax.value_and_grad(lambda y: weightings.perceptual(maps, y, x).sum())(x)
    assert value == 0
    np.testing.assert_array_equal(slope, 0)
    away = jax.grad(lambda y: weightings.perceptual(maps, y, x[::-1]).sum())(x)
    assert np.isfinite(away).all() and np.abs(away[:-1]).max() > 0


# The losses

PATH = interpolants.variance_exploding()
STD, COUNT = 0.7, 6


def drift(x, s, t, cond, *, dropout=None):
    """The exact velocity of N(0, STD^2 I) on `PATH`."""
    sigma = expand(PATH.sigma(s), x)
    return expand(PATH.beta.slope(s), x) * sigma * x / (STD**2 + sigma**2)


def product_of_steps():
    """X_{s,t}, between the times of a grid of COUNT, by Euler's steps in sigma: a gain of x."""
    grid = jnp.linspace(0, 1, COUNT + 1)
    gains = steps.STEPS["ddim"](drift, PATH, jnp.ones((COUNT, 1)), grid[:-1], grid[1:], {})[:, 0]
    products = jnp.concatenate([jnp.cumprod(gains[::-1])[::-1], jnp.ones(1)])

    def velocity(x, s, t, cond, *, dropout=None):
        at_s, at_t = (products[jnp.round(time * COUNT).astype(jnp.int32)] for time in (s, t))
        return expand((at_s / at_t - 1) / jnp.where(t > s, t - s, 1.0), x) * x

    return velocity


def mixing(exact, theta):
    """A velocity that strays into other channels; in its own scale alone an image would keep its looks."""

    def velocity(x, s, t, cond, *, dropout=None):
        return exact(x, s, t, cond) + theta * jnp.roll(x, 1, axis=-1)

    return velocity


ONLINE = {"pairs": "online", "solver": "ddim", "solver_steps": COUNT, "points": COUNT}
GRID = {"leg": "ddim", "schedule": "doubling", "intervals": (COUNT, COUNT)}
CASES = {
    "consistency": GRID,
    "ctm": {"leg": "ddim", "intervals": COUNT, "most_steps": 3, "weights": (1.0, 0.0)},
    "knowledge_distillation": ONLINE,
    "consistency_mid_training": ONLINE,
    "latent_consistency": {"chain": COUNT, "skip": 2},
}


def loss(name, student, target=None, extras=None, **options):
    """A batch's, of a teacher that is exact."""
    method = methods.load(name).make(interpolant=PATH, total_steps=10, distance="perceptual", **options)
    assert method.owners == {"features": "frozen"}
    roles = Roles(student, target or student, drift, {"features": linear_features} if extras is None else extras)
    return method.losses["student"](roles, {"x0": images(0), "x1": STD * images(1)}, KEYS, jnp.zeros((), jnp.int32))


@pytest.mark.float64
@pytest.mark.parametrize("name", CASES)
def test_a_perceptual_loss_rests_at_the_product_of_its_teachers_steps(name):
    """Where distance and gradient are zero, and a stray is pulled back."""
    exact = product_of_steps()

    @jax.jit
    @jax.value_and_grad
    def mean(theta):
        return loss(name, mixing(exact, theta), mixing(exact, 0.0), **CASES[name]).per_example.mean()

    value, slope = mean(0.0)
    assert value < 1e-24 and abs(slope) < 1e-12
    assert mean(0.1)[1] > 1e-3 and mean(-0.1)[1] < -1e-3


def jump_to(image):
    """The velocity to one image at the time 1."""
    return lambda x, s, t, cond, *, dropout=None: (image - x) / expand(1 - s, x)


@pytest.mark.float64
def test_a_truncated_consistency_model_is_weighed_alike_by_any_distance():
    """A student that jumps to another channel than its target and its teacher is 2 away by features that see channels,
    and 2 at each of 16 places by squares."""
    losses = []
    for distance in ("perceptual", "squared"):
        method = methods.load("truncated_consistency").make(interpolant=PATH, total_steps=10, distance=distance)
        roles = Roles(jump_to(channel(1)), *2 * [jump_to(channel(0))], {"features": with_heads(lambda x: (x,))})
        batch = {"x0": images(0), "x1": STD * images(1)}
        losses.append(method.losses["student"](roles, batch, KEYS, jnp.zeros((), jnp.int32)).per_example)
    np.testing.assert_allclose(losses[0] / losses[1], 2 / 32, rtol=1e-6)


@pytest.mark.float64
@pytest.mark.parametrize(("image", "distance"), [(0, 0.0), (1, 2.0)])
def test_reflow_sees_the_data_that_a_velocity_tells(image, distance):
    """As its last round to one step asks, at the time 0, and at any other."""
    method = methods.load("reflow").make(interpolant=interpolants.linear(), total_steps=10, distance="perceptual")
    assert method.owners == {"features": "frozen"}
    batch = {"x0": images(0), "x1": jnp.broadcast_to(channel(0), (len(KEYS), *SHAPE))}
    roles = Roles(jump_to(channel(image)), None, None, {"features": with_heads(lambda x: (x,))})
    found = method.losses["student"](roles, batch, KEYS, jnp.zeros((), jnp.int32)).per_example
    np.testing.assert_allclose(found, distance, atol=1e-9)


@pytest.mark.float64
def test_a_consistency_models_distance_is_that_of_its_states_at_the_end():
    """Student and target are X_{s,1} = x A and x B, and what features see is where they end."""

    def to(matrix):
        def velocity(x, s, t, cond, *, dropout=None):
            return (x @ matrix - x) / expand(jnp.where(t > s, t - s, 1.0), x)

        return velocity

    one, other = jnp.eye(3)[::-1], 5 * jnp.eye(3)
    seen = []

    def features(x):
        seen.append(x)
        return linear_features(x)

    options = {"schedule": "doubling", "intervals": (2, 2), "law": ("uniform",)}
    out = loss("consistency", to(one), to(other), {"features": with_heads(features)}, **options)
    s = jnp.floor(2 * times.on_path(PATH, "uniform")(rows.fold(KEYS, 1))) / 2
    x_s, x_u = (PATH.point(images(0), STD * images(1), time) for time in (s, s + 0.5))
    aim = jnp.where(expand(s, x_u) == 0.5, x_u, x_u @ other)  # at the end nothing is moved
    np.testing.assert_allclose(seen[0], x_s @ one, atol=1e-9)
    np.testing.assert_allclose(seen[1], aim, atol=1e-9)
    np.testing.assert_allclose(out.per_example, weightings.perceptual(linear_features, x_s @ one, aim), rtol=1e-9)


def test_features_that_are_not_there_are_asked_for():
    with pytest.raises(UsageError, match=r"there is no network of them: set config\.players\.features"):
        loss("consistency", drift, extras={}, **GRID)


def test_maps_that_do_not_end_at_images_have_no_perceptual_distance():
    with pytest.raises(UsageError, match=r"not all maps end: set method\.maps='end'"):
        loss("consistency_mid_training", drift, maps="all", **ONLINE)


# Pixel MeanFlow


def pixel_mean_flow(seen, perceptual, power=0.0):
    """The loss of a batch whose data are one image, of channel 0 alone, for a network both of whose heads are the
    velocity to the image `seen`."""
    method = methods.load("improved_mean_flow").make(
        interpolant=interpolants.linear(), total_steps=10, law=("uniform",), power=power, perceptual=perceptual
    )
    assert method.owners == ({"features": "frozen"} if perceptual else {})
    student = jump_to(seen)
    student.heads = lambda *inputs, **keywords: (student(*inputs), student(*inputs))
    keys = rows.keys(jax.random.key(1), 0, 4_096)
    data = jnp.broadcast_to(channel(0), (4_096, *SHAPE))
    extras = {"features": with_heads(lambda x: (x,))}
    roles = Roles(student, student, None, extras)
    return method.losses["student"](roles, {"x0": rows.normal(keys, SHAPE), "x1": data}, keys, jnp.zeros((), jnp.int32))


def channel(index):
    return jnp.broadcast_to(jnp.eye(3)[index], (1, *SHAPE))


@pytest.mark.float64
def test_pixel_mean_flow_has_nothing_to_lose_where_it_sees_the_data():
    out = pixel_mean_flow(channel(0), 0.4)
    np.testing.assert_allclose(out.per_example, 0, atol=1e-12)
    assert out.metrics["perceptual"] < 1e-24


@pytest.mark.float64
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_pixel_mean_flow_sees_images_after_a_fifth_of_the_path(power):
    """What it sees is of another channel, at the distance 2, where the earlier of two uniform times is above 0.2: in
    0.64 of the rows. The adaptive weight is the term's own."""
    outs = [pixel_mean_flow(channel(1), perceptual, power) for perceptual in (0.4, 0.0)]
    extra = np.asarray(outs[0].per_example - outs[1].per_example)
    each = 0.4 * 2 / (2 + 0.01) ** power
    assert np.all(np.isclose(extra, 0, atol=1e-6) | np.isclose(extra, each, atol=1e-6))
    share = np.mean(extra > each / 2)
    assert abs(share - 0.64) < 4 * (0.64 * 0.36 / 4_096) ** 0.5
    np.testing.assert_allclose(outs[0].metrics["perceptual"], 2 * share, rtol=1e-9)
    assert "perceptual" not in outs[1].metrics
