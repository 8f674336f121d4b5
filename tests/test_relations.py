"""What is algebraically the same loss: identities between the methods' gradients, in float64, on a random network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.lax import stop_gradient
from laws import LINEAR, draw_batch, gaussian

from flowmaps import methods, networks, rows
from flowmaps.identities import directional_derivative, eulerian, flow_map, lagrangian, semigroup
from flowmaps.rows import expand, flat_sum
from flowmaps.types import Roles
from flowmaps.weightings import squared

pytestmark = pytest.mark.float64

ROWS = 64


class Setting:
    """A small random network, points of a path, and times s < t."""

    def __init__(self):
        self.module = networks.make("mlp", shape=(2,), num_classes=0, width=16, depth=3)
        params = networks.init(self.module, jax.random.key(1))
        self.params = jax.tree.map(lambda p: p.astype(jnp.float64), params)
        keys = rows.keys(jax.random.key(2), 0, ROWS)
        self.keys = keys
        self.batch = draw_batch(gaussian().sample, keys)
        one, other = rows.uniform(rows.fold(keys, 5)), rows.uniform(rows.fold(keys, 6))
        self.s, self.t = jnp.minimum(one, other), jnp.maximum(one, other)
        ends = self.batch["x0"], self.batch["x1"], self.s
        self.x, self.velocity = LINEAR.point(*ends), LINEAR.velocity(*ends)

    def net(self, params, stopped=False):
        return networks.bind(self.module, stop_gradient(params) if stopped else params)

    def gradient(self, per_row):
        """Of the mean of per_row(student, target) over rows, as one vector."""

        def loss(params):
            return per_row(self.net(params), self.net(params, stopped=True)).mean()

        return ravel_pytree(jax.grad(loss)(self.params))[0]

    def method_gradient(self, name, **options):
        method = methods.load(name).make(interpolant=LINEAR, total_steps=10, **options)

        def loss(params):
            roles = Roles(self.net(params), self.net(params, stopped=True))
            return method.losses["student"](roles, self.batch, self.keys, jnp.zeros((), jnp.int32)).per_example.mean()

        return ravel_pytree(jax.grad(loss)(self.params))[0]


@pytest.fixture
def setting(float64):
    return Setting()


def assert_same(one, other, rtol=1e-10):
    np.testing.assert_allclose(one, other, rtol=0, atol=rtol * np.abs(other).max())


def own(target):
    return lambda x, t: target(x, t, t, {})


def test_mean_flow_is_the_eulerian_residual_with_the_conditional_velocity(setting):
    """MeanFlow's u - sg(v - (t - r) du/dt), written out by hand, against identities.eulerian."""
    z = setting

    def by_hand(student, target):
        v, dv = jax.jvp(lambda x, s: student(x, s, z.t, {}), (z.x, z.s), (z.velocity, jnp.ones_like(z.s)))
        return flat_sum((v - stop_gradient(z.velocity + (z.t - z.s)[:, None] * dv)) ** 2)

    def by_identity(student, target):
        return squared(eulerian(student, z.x, z.s, z.t, z.velocity, {}, through="velocity"))

    assert_same(z.gradient(by_identity), z.gradient(by_hand))


def test_mean_flow_is_the_inner_product_with_the_maps_stopped_derivative(setting):
    """grad |R_E|^2 (through v) = -2 / (t - s) grad <X, sg dX/ds>: Align Your Flow's and continuous CT's form."""
    z = setting

    def inner(student, target):
        _, slope = directional_derivative(
            lambda x, s: flow_map(student, x, s, z.t, {}), (z.x, z.s), (z.velocity, jnp.ones_like(z.s))
        )
        moved = flow_map(student, z.x, z.s, z.t, {})
        return -2 / (z.t - z.s) * flat_sum(moved * stop_gradient(slope))

    def residual(student, target):
        return squared(eulerian(student, z.x, z.s, z.t, z.velocity, {}, through="velocity"))

    assert_same(z.gradient(residual), z.gradient(inner))


def test_lsd_with_its_derivative_stopped_is_align_your_flows_lmd(setting):
    z = setting

    def inner(student, target):
        moved, slope = directional_derivative(
            lambda t: flow_map(student, z.x, z.s, t, {}), (z.t,), (jnp.ones_like(z.t),)
        )
        off = stop_gradient(slope - target(moved, z.t, z.t, {}))
        return 2 / (z.t - z.s) * flat_sum(flow_map(student, z.x, z.s, z.t, {}) * off)

    def residual(student, target):
        return squared(lagrangian(student, z.x, z.s, z.t, own(target), {}, through="velocity"))

    assert_same(z.gradient(residual), z.gradient(inner))


def test_lsd_gradient_flows_through_the_time_derivative(setting):
    """The paper's stop-gradients: |d_t X - const|^2 with the constant computed beforehand."""
    z = setting
    frozen = z.net(z.params)
    constant = frozen(flow_map(frozen, z.x, z.s, z.t, {}), z.t, z.t, {})

    def by_hand(student, target):
        _, slope = jax.jvp(lambda t: z.x + (t - z.s)[:, None] * student(z.x, z.s, t, {}), (z.t,), (jnp.ones(ROWS),))
        return flat_sum((slope - constant) ** 2)

    def residual(student, target):
        return squared(lagrangian(student, z.x, z.s, z.t, own(target), {}))

    assert_same(z.gradient(residual), z.gradient(by_hand))


def test_esd_gradient_flows_through_the_derivative_in_s_alone(setting):
    """|d_s X + const|^2 with the advection grad X v_ss computed beforehand."""
    z = setting
    frozen = z.net(z.params)
    speed = frozen(z.x, z.s, z.s, {})
    _, advection = jax.jvp(lambda x: flow_map(frozen, x, z.s, z.t, {}), (z.x,), (speed,))

    def by_hand(student, target):
        _, slope = jax.jvp(lambda s: flow_map(student, z.x, s, z.t, {}), (z.s,), (jnp.ones(ROWS),))
        return flat_sum((slope + advection) ** 2)

    def residual(student, target):
        return squared(eulerian(student, z.x, z.s, z.t, target(z.x, z.s, z.s, {}), {}, through="slope"))

    assert_same(z.gradient(residual), z.gradient(by_hand))


def test_shortcut_is_psd_at_the_midpoint(setting):
    """Both legs at half the step and their mean as the target, by hand, against the semigroup at h = 1/2."""
    z = setting

    def by_hand(student, target):
        d = z.t - z.s
        first = target(z.x, z.s, z.s + d / 2, {})
        second = target(z.x + (d / 2)[:, None] * first, z.s + d / 2, z.t, {})
        return flat_sum((student(z.x, z.s, z.t, {}) - (first + second) / 2) ** 2)

    def by_identity(student, target):
        return squared(semigroup(student, target, z.x, z.s, z.t, jnp.full(ROWS, 0.5), {}))

    assert_same(z.gradient(by_identity), z.gradient(by_hand))


def test_psd_is_the_semigroup_in_units_of_state_divided_by_the_span(setting):
    z = setting
    share = rows.uniform(rows.fold(z.keys, 9))
    net = z.net(z.params)
    u = z.s + share * (z.t - z.s)
    composed = flow_map(net, flow_map(net, z.x, z.s, u, {}), u, z.t, {})
    state = flow_map(net, z.x, z.s, z.t, {}) - composed
    assert_same(expand(z.t - z.s, z.x) * semigroup(net, net, z.x, z.s, z.t, share, {}), state)


@pytest.mark.parametrize("end", ["eulerian", "lagrangian"])
def test_the_semigroup_ends_in_the_two_differential_identities(setting, end):
    """Gradient of S_h / h -> Eulerian as h -> 0 and of S_h / (1 - h) -> Lagrangian as h -> 1, at first order."""
    z = setting

    def limit(student, target):
        if end == "eulerian":
            return squared(eulerian(student, z.x, z.s, z.t, target(z.x, z.s, z.s, {}), {}, through="velocity"))
        return squared(lagrangian(student, z.x, z.s, z.t, own(target), {}, through="velocity"))

    def finite(h):
        share = jnp.full(ROWS, h if end == "eulerian" else 1 - h)

        # grad of |r|^2 is 2 r grad v, so that the residual's 1/h is one factor and not two.
        def per_row(student, target):
            return squared(semigroup(student, target, z.x, z.s, z.t, share, {})) / h

        return z.gradient(per_row)

    exact = z.gradient(limit)
    errors = [np.abs(finite(h) - exact).max() for h in (1e-2, 1e-3)]
    assert errors[1] < 1e-2 * np.abs(exact).max()
    np.testing.assert_allclose(np.log10(errors[0] / errors[1]), 1.0, atol=0.1)


def test_on_the_diagonal_every_identity_is_flow_matching(setting):
    """At s = t the Eulerian residual is b - v and the Lagrangian one, with b = dx/dt, its negative."""
    z = setting
    net = z.net(z.params)
    flow = net(z.x, z.s, z.s, {}) - z.velocity
    assert_same(-eulerian(net, z.x, z.s, z.s, z.velocity, {}), flow)
    assert_same(lagrangian(net, z.x, z.s, z.s, lambda x, t: z.velocity, {}), flow)


def test_mean_flow_without_off_diagonal_noise_equals_its_model_tangent_form(setting):
    """With the conditional velocity given as the direction, improved MeanFlow's residual is MeanFlow's."""
    z = setting

    def separate(student, target):
        return squared(eulerian(student, z.x, z.s, z.t, z.velocity, {}, direction=z.velocity))

    def joint(student, target):
        return squared(eulerian(student, z.x, z.s, z.t, z.velocity, {}))

    assert_same(z.gradient(separate), z.gradient(joint))


def test_psd_u_and_psd_m_differ_only_in_where_they_cut(setting):
    """Options of one file: the diagonal term is shared to the bit, the other is not."""
    both = [setting.method_gradient("psd", middle=m, weights=(1.0, 0.0)) for m in ("midpoint", "uniform")]
    np.testing.assert_array_equal(*both)
    both = [setting.method_gradient("psd", middle=m) for m in ("midpoint", "uniform")]
    assert np.abs(both[0] - both[1]).max() > 1e-6


def test_the_weights_of_the_two_terms_are_those_of_their_means(setting):
    """Paper (1, 1) against released code (3/4, 1/4): the gradient is linear in the two weights."""
    flow, map_, both = (setting.method_gradient("lsd", weights=w) for w in ((1.0, 0.0), (0.0, 1.0), (0.75, 0.25)))
    assert_same(both, 0.75 * flow + 0.25 * map_)
