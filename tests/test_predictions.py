"""Predictions: each raw output gives the exact velocity when it is what it says, on every path and at its ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps import closed_forms, interpolants, predictions
from flowmaps.errors import UsageError

pytestmark = pytest.mark.float64

DATA_STD = 0.6
PATHS = {
    "linear": lambda: interpolants.linear(source_std=0.8),
    "trigonometric": lambda: interpolants.trigonometric(source_std=0.8),
    "variance_preserving": lambda: interpolants.variance_preserving(source_std=0.8),
    "sub_variance_preserving": lambda: interpolants.sub_variance_preserving(source_std=0.8),
    "variance_exploding": lambda: interpolants.variance_exploding(source_std=0.8),
    "geometric": lambda: interpolants.geometric(source_std=0.8),
    "discrete": lambda: interpolants.discrete(num_steps=10, source_std=0.8),
}


def spread(path, t):
    a, b = path.alpha.value(t), path.beta.value(t)
    return jnp.sqrt((a * DATA_STD) ** 2 + (b * path.source_std) ** 2)[:, None]


def outputs(path, oracle):
    """What a perfect network gives, from the scaled x that it is fed."""

    def ends(scaled, t):
        x = scaled * spread(path, t)
        a, b = (c.value(t)[:, None] for c in (path.alpha, path.beta))
        return x, a, b, *oracle.ends(x, t)

    def edm(scaled, t):
        x, a, b, _, data = ends(scaled, t)
        q = spread(path, t)
        return (data - a * DATA_STD**2 / q**2 * x) * q / (b * DATA_STD * path.source_std)

    return {
        "data": lambda y, t: ends(y, t)[4],
        "noise": lambda y, t: ends(y, t)[3],
        "score": lambda y, t: -ends(y, t)[3] / path.source_std,
        "v": lambda y, t: ends(y, t)[1] * ends(y, t)[3] - ends(y, t)[2] * ends(y, t)[4],
        "edm": edm,
        "both": lambda y, t: ends(y, t)[:2:-1],
    }


def network(output):
    """A network whose output is a function of (x, s), and a tuple where it has two."""

    def heads(x, s, t, cond, *, dropout=None):
        out = output(x, s)
        return out if isinstance(out, tuple) else (out,)

    def first(x, s, t, cond, *, dropout=None):
        return heads(x, s, t, cond)[0]

    first.heads = heads
    return first


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("name", ["data", "noise", "score", "v", "both", "edm"])
def test_a_perfect_output_is_the_exact_velocity(path, name):
    path = PATHS[path]()
    oracle = closed_forms.gaussian(jnp.array([0.4, -0.3]), jnp.array([[0.09, 0.03], [0.03, 0.05]]), path)
    perfect = outputs(path, oracle)[name]
    velocity = predictions.make(name, interpolant=path, data_std=DATA_STD)(network(perfect))
    x = jax.random.normal(jax.random.key(0), (40, 2))
    s = jnp.linspace(path.t_min + 0.07, path.t_max - 0.07, 40)
    exact = oracle.velocity(x, s)
    np.testing.assert_allclose(velocity(x, s, s, {}), exact, atol=1e-9 * np.abs(exact).max())
    t = s[::-1]  # held from s to t it is DDIM's step
    noise, data = oracle.ends(x, s)
    a, b = (c.value(t)[:, None] for c in (path.alpha, path.beta))
    moved = x + (t - s)[:, None] * velocity(x, s, t, {})
    np.testing.assert_allclose(moved, a * data + b * noise, atol=1e-8 * np.abs(moved).max())


def test_edms_coefficients():
    """On x_t = x1 + sigma x0: c_in = 1 / sqrt(sigma^2 + sd^2), c_skip = (sd c_in)^2, c_out = sigma sd c_in."""
    path = interpolants.variance_exploding()
    x, t = jax.random.normal(jax.random.key(0), (9, 3)), jnp.linspace(0, 1, 9)
    seen = []

    def raw(x, s, t, cond, *, dropout=None):
        seen.append(x)
        return jnp.sin(x)

    velocity = predictions.make("edm", interpolant=path, data_std=0.5)(raw)(x, t, t, {})
    sigma = path.beta.value(t)[:, None]
    c_in = 1 / jnp.sqrt(sigma**2 + 0.25)
    np.testing.assert_allclose(seen[0], c_in * x, rtol=1e-12)
    denoised = 0.25 * c_in**2 * x + sigma * 0.5 * c_in * jnp.sin(c_in * x)
    np.testing.assert_allclose(path.ends_from_velocity(x, velocity, t).data, denoised, atol=1e-9)


@pytest.mark.parametrize("name", ["v", "both", "edm"])
def test_regular_at_both_ends(name):
    path = interpolants.linear()
    output = network(lambda x, s: (jnp.cos(x), jnp.sin(x)) if name == "both" else jnp.cos(x))
    velocity = predictions.make(name, interpolant=path)(output)
    for s in (0.0, 1.0):
        out = velocity(jnp.ones((2, 2)), jnp.full(2, s), jnp.full(2, 0.5), {})
        assert np.isfinite(out).all() and np.abs(out).max() < 10


def test_unknown_predictions_are_told_the_nearest():
    with pytest.raises(UsageError, match="unknown prediction 'nois': did you mean 'noise'"):
        predictions.make("nois", interpolant=interpolants.linear())


@pytest.mark.parametrize("path", ["variance_exploding", "geometric", "variance_preserving"])
def test_the_consistency_prediction_has_the_papers_coefficients_and_boundary(path):
    """c_skip = sd^2 / ((sigma - eps)^2 + sd^2), c_out = sd (sigma - eps) / sqrt(sigma^2 + sd^2) of x / alpha, at any
    output; and X_{s,1} is the identity at the path's end."""
    path = PATHS[path]()
    draw = np.random.default_rng(0)
    x, raw = (jnp.asarray(draw.normal(size=(5, 2))) for _ in range(2))
    s, end = jnp.asarray([0.1, 0.4, 0.7, 0.95, path.t_max]), jnp.full(5, path.t_max)
    velocity = predictions.make("consistency", interpolant=path, data_std=DATA_STD)(lambda *_, **__: raw)
    moved = x + (end - s)[:, None] * velocity(x, s, end, {})
    sigma, eps = (path.sigma(t)[:, None] for t in (s, end))
    skip = DATA_STD**2 / ((sigma - eps) ** 2 + DATA_STD**2)
    out = DATA_STD * (sigma - eps) / jnp.sqrt(sigma**2 + DATA_STD**2)
    a, a_end = (path.alpha.value(t)[:, None] for t in (s, end))
    np.testing.assert_allclose(moved / a_end, skip * x / a + out * raw, atol=1e-8)
    np.testing.assert_array_equal(moved[-1], x[-1])


def test_the_consistency_prediction_on_a_path_without_a_last_noise_is_edm():
    path = interpolants.variance_exploding(sigma_min=0.0, source_std=0.8)
    x, s, t = jnp.ones((3, 2)), jnp.asarray([0.2, 0.5, 0.9]), jnp.asarray([0.4, 1.0, 0.95])
    both = [
        predictions.make(name, interpolant=path, data_std=DATA_STD)(lambda y, *_, **__: jnp.sin(y))(x, s, t, {})
        for name in ("consistency", "edm")
    ]
    np.testing.assert_allclose(*both, rtol=1e-10)


def test_data_prediction_is_clipped_near_the_end_alone():
    """beta counts as no less than 0.05 where it divides: v = D - (x - s D) / max(1 - s, 0.05)."""
    path = interpolants.linear()
    x, raw = jnp.ones((3, 2)), jnp.full((3, 2), 0.25)
    s = jnp.asarray([0.2, 0.95, 0.99])
    velocity = predictions.make("data", interpolant=path, data_std=DATA_STD, clip=0.05)(lambda *_, **__: raw)
    exact = 0.25 - (1 - 0.25 * s) / np.maximum(1 - np.asarray(s), 0.05)
    np.testing.assert_allclose(velocity(x, s, s, {}), np.broadcast_to(exact[:, None], (3, 2)), rtol=1e-6)
    np.testing.assert_allclose(exact[:2], (0.25 - 1) / (1 - np.asarray(s[:2])), rtol=1e-6)  # not clipped


def test_each_head_is_read_by_the_prediction():
    """The first as v_{s,t}; the others as velocities at s, which on the diagonal are the same."""
    path = PATHS["trigonometric"]()

    def raw(x, s, t, cond, *, dropout=None):
        return jnp.sin(x)

    raw.heads = lambda x, *rest, **keywords: (jnp.sin(x), jnp.sin(x))
    student = predictions.make("edm", interpolant=path, data_std=DATA_STD)(raw)
    x, s, t = jnp.ones((2, 2)), jnp.asarray([0.2, 0.5]), jnp.asarray([0.9, 0.5])
    first, second = student.heads(x, s, t, {})
    np.testing.assert_allclose(first, student(x, s, t, {}), rtol=1e-12)
    np.testing.assert_allclose(second, student(x, s, s, {}), rtol=1e-12)


@pytest.mark.parametrize("path", [p for p in PATHS if p != "discrete"])
def test_ends_from_average_invert_the_chord(path):
    """Between two times, and on the diagonal where they are ends_from_velocity."""
    path = PATHS[path]()
    x0, x1 = jnp.asarray([[0.3, -1.0]] * 3), jnp.asarray([[2.0, 0.5]] * 3)
    s, t = jnp.asarray([0.3, 0.5, 0.2]), jnp.asarray([0.8, 0.5, 0.21])
    x = path.point(x0, x1, s)
    chord = path.chord(x0, x1, s, t)
    np.testing.assert_allclose(x + (t - s)[:, None] * chord, path.point(x0, x1, t), rtol=1e-9)
    ends = path.ends_from_average(x, chord, s, t)
    np.testing.assert_allclose(ends.noise, x0, rtol=1e-7)
    np.testing.assert_allclose(ends.data, x1, rtol=1e-7)


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("own", ["linear", "variance_exploding", "variance_preserving", "trigonometric"])
def test_a_velocity_is_carried_exactly_from_path_to_path(own, path):
    """The oracle of one path, asked through another one, is the other's oracle, and so is its score; of sources with
    another deviation too, at levels that both have."""
    own, path = PATHS[own]()._replace(source_std=0.5), PATHS[path]()
    law = jnp.array([0.3, 0.7]), jnp.array([[0.6, 0.4], [-0.3, -0.2]]), jnp.array([0.04 * jnp.eye(2), 0.1 * jnp.eye(2)])
    there, here = (closed_forms.mixture(*law, p, 8) for p in (own, path))

    def velocity(x, s, t, cond, *, dropout=None):
        return there.velocity(x, s)

    carried = predictions.on_another_path(velocity, own, path)
    s = jnp.asarray([0.31, 0.52, 0.68])
    x = path.point(jnp.asarray([[0.4, -0.7], [0.1, 0.9], [-1.0, 0.2]]), jnp.asarray([[0.5, 0.3]] * 3), s)
    np.testing.assert_allclose(carried(x, s, s, {}), here.velocity(x, s), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", ["two_clocks", "scaled"])
def test_every_prediction_passes_the_heads_on(name):
    """The first head is the call, and both are read alike."""
    path = PATHS["linear"]()

    def raw(x, s, t, cond, *, dropout=None):
        return jnp.sin(x + s[:, None])

    raw.heads = lambda *inputs, **keywords: (raw(*inputs, **keywords),) * 2
    student = predictions.make(name, interpolant=path)(raw)
    x, s, t = jnp.ones((2, 2)), jnp.asarray([0.2, 0.5]), jnp.asarray([0.9, 0.5])
    cond = {"guidance": jnp.asarray([2.0, 3.0])}
    for head in student.heads(x, s, t, cond):
        np.testing.assert_array_equal(head, student(x, s, t, cond))
