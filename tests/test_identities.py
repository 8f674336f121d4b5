"""The residuals' own arithmetic: divergence, and what each `through` lets the gradient see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import COUNT, gaussian, stray

from flowmaps import identities
from flowmaps.rows import flat_sum

pytestmark = pytest.mark.float64


def test_divergence_of_a_known_field():
    """div (x^2 y, sin x + y^3) = 2 x y + 3 y^2."""
    x = jax.random.normal(jax.random.key(0), (20, 2))

    def field(x):
        return jnp.stack([x[:, 0] ** 2 * x[:, 1], jnp.sin(x[:, 0]) + x[:, 1] ** 3], axis=-1)

    expected = 2 * x[:, 0] * x[:, 1] + 3 * x[:, 1] ** 2
    np.testing.assert_allclose(identities.divergence(field, x), expected, rtol=1e-12)


def test_divergence_of_the_gaussian_flow_is_the_growth_of_its_volume():
    """div b_t = d/dt log det of the flow's (linear) map = sum over eigenvalues of d/dt log q."""
    oracle = gaussian()
    t = jnp.full(4, 0.5)
    x = jax.random.normal(jax.random.key(0), (4, 2))
    eigenvalues = jnp.linalg.eigvalsh(jnp.array([[0.09, 0.03], [0.03, 0.05]]))
    growth = jax.grad(lambda t: 0.5 * jnp.sum(jnp.log(t**2 * eigenvalues + (1 - t) ** 2 * 0.09)))(0.5)
    np.testing.assert_allclose(identities.divergence(lambda x: oracle.velocity(x, t), x), growth, rtol=1e-9)


def points():
    keys = jax.random.split(jax.random.key(0), 4)
    x, b = (jax.random.normal(k, (16, 2)) for k in keys[:2])
    s, t = (jax.random.uniform(k, (16,)) for k in keys[2:])
    return x, b, jnp.minimum(s, t), jnp.maximum(s, t)


def sensitivity(residual):
    """The gradient of the summed squares in the student's theta and in the other party's."""

    def loss(theta, other):
        return flat_sum(residual(stray(gaussian().average_velocity, theta), other) ** 2).sum()

    return jax.grad(loss, argnums=(0, 1))(0.1 * jnp.ones(COUNT), jnp.ones(()))


@pytest.mark.parametrize(("through", "sees_velocity"), [("velocity", False), ("slope", False), ("all", True)])
def test_eulerian_stops_the_velocity_it_is_given(through, sees_velocity):
    x, b, s, t = points()

    def residual(student, other):
        return identities.eulerian(student, x, s, t, other * b, {}, through=through)

    assert (sensitivity(residual)[1] != 0) == sees_velocity


@pytest.mark.parametrize(("through", "sees_field"), [("map", False), ("velocity", False), ("all", True)])
def test_lagrangian_stops_the_field(through, sees_field):
    x, _, s, t = points()

    def residual(student, other):
        return identities.lagrangian(student, x, s, t, lambda x, t: other * x, {}, through=through)

    assert (sensitivity(residual)[1] != 0) == sees_field


def test_all_values_of_through_have_the_same_residual():
    x, b, s, t = points()
    net = stray(gaussian().average_velocity, 0.1 * jnp.ones(COUNT))
    for identity, choices in (
        (lambda how: identities.eulerian(net, x, s, t, b, {}, through=how), ("velocity", "slope", "map", "all")),
        (lambda how: identities.lagrangian(net, x, s, t, lambda x, t: x, {}, through=how), ("map", "velocity", "all")),
        (lambda how: identities.semigroup(net, net, x, s, t, 0.5 * s / s, {}, through=how), ("velocity", "all")),
    ):
        first, *others = (identity(how) for how in choices)
        for other in others:
            np.testing.assert_allclose(other, first, rtol=1e-12, atol=1e-14)


def test_a_sum_of_parts_is_the_total_gradient():
    """Eulerian, "map": its gradient is that through v and dv/ds ("slope") plus that through the advection."""
    x, b, s, t = points()

    def gradient(how):
        return sensitivity(lambda net, _: identities.eulerian(net, x, s, t, b, {}, through=how))[0]

    def advection(net, _):
        _, along = identities.directional_derivative(lambda x: net(x, s, t, {}), (x,), (b,))
        rest = identities.eulerian(net, x, s, t, b, {}) - (t - s)[:, None] * along
        return jax.lax.stop_gradient(rest) + (t - s)[:, None] * along

    np.testing.assert_allclose(gradient("map"), gradient("slope") + sensitivity(advection)[0], rtol=1e-9, atol=1e-12)
