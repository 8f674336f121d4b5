"""What is algebraically the same loss: identities between the methods' gradients, in float64, on a random network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree
from jax.lax import stop_gradient
from laws import LINEAR, draw_batch, gaussian

from flowmaps import methods, networks, rows, times
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

    def method_loss(self, name, params, *, at=0, wrap=lambda net: net, **options):
        """One value a row, at step `at`, of the network as `wrap` makes it."""
        method = methods.load(name).make(interpolant=LINEAR, total_steps=10, **options)
        roles = Roles(wrap(self.net(params)), wrap(self.net(params, stopped=True)))
        return method.losses["student"](roles, self.batch, self.keys, jnp.asarray(at, jnp.int32)).per_example

    def method_gradient(self, name, **options):
        return ravel_pytree(jax.grad(lambda params: self.method_loss(name, params, **options).mean())(self.params))[0]

    def map_gradient(self, name, **options):
        """Of the rows off the diagonal, a half."""

        def loss(params):
            return rows.split(self.method_loss(name, params, **options), (0.5, 0.5))[1].mean()

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


def drawn_point(z, s):
    """x_s and the path's velocity there, of the whole batch."""
    ends = z.batch["x0"], z.batch["x1"], s
    return LINEAR.point(*ends), LINEAR.velocity(*ends)


HALVES = {"law": ("uniform",), "diagonal_fraction": 0.5}
"""Options of methods that deal half of the rows to the map, whose times are uniform on the triangle."""


def off_diagonal(z):
    """The rows of the second half, and the times that a method draws for them."""
    keys, batch = rows.split((z.keys, z.batch), (0.5, 0.5))[1]
    s, t = times.sorted_pair(times.uniform())(rows.fold(keys, 1))
    return batch, s, t


def test_split_mean_flow_is_psd_with_a_uniform_cut(setting):
    """(t - r) u(z_t, r, t) = (s - r) u(z_s, r, s) + (t - s) u(z_t, s, t) in the paper's clock, by hand."""
    z = setting
    share = rows.uniform(rows.fold(z.keys, 9))

    def by_hand(student, target):
        r, t = 1 - z.t, 1 - z.s  # the paper's end and start
        cut = (1 - share) * t + share * r

        def u(net, x, r, t):
            return -net(x, 1 - t, 1 - r, {})

        second = u(target, z.x, cut, t)
        first = u(target, z.x - (t - cut)[:, None] * second, r, cut)
        aim = (1 - share)[:, None] * first + share[:, None] * second
        return flat_sum((u(student, z.x, r, t) - stop_gradient(aim)) ** 2)

    def by_identity(student, target):
        return squared(semigroup(student, target, z.x, z.s, z.t, share, {}))

    assert_same(z.gradient(by_identity), z.gradient(by_hand))


def test_alpha_flow_at_one_is_trajectory_flow_matching(setting):
    """|v_st(x_s) - (x_t - x_s) / (t - s)|^2, on the linear path |v_st - (x1 - x0)|^2."""
    z = setting

    def by_hand(student, target):
        batch, s, t = off_diagonal(z)
        x = LINEAR.point(batch["x0"], batch["x1"], s)
        return flat_sum((student(x, s, t, {}) - (batch["x1"] - batch["x0"])) ** 2)

    alpha_one = z.map_gradient("alpha_flow", power=0.0, between=(0.5, 1.0), **HALVES)
    assert_same(alpha_one, z.gradient(by_hand))


def test_alpha_flow_comes_to_mean_flow_at_first_order_and_ends_as_it(setting):
    """The methods' whole gradients: their difference is proportional to alpha, and at alpha = 0 nothing."""
    z = setting
    limit = z.method_gradient("mean_flow", power=0.5, **HALVES)

    def difference(**options):
        return np.abs(z.method_gradient("alpha_flow", power=0.5, **HALVES, **options) - limit).max()

    errors = [difference(schedule="exponential", between=(a, a)) for a in (1e-2, 1e-3)]
    assert errors[1] < 1e-2 * np.abs(limit).max()
    np.testing.assert_allclose(np.log10(errors[0] / errors[1]), 1.0, atol=0.1)
    assert difference(between=(0.0, 0.5), at=9) < 1e-10 * np.abs(limit).max()


def test_soflow_is_alpha_flow_in_the_form_of_an_inner_product(setting):
    """2 <v, sg[w q]>, q = (f_s - f_u) / (u - s), f = X_{.,t} and w = 1 / (|q|^2 + c): SoFlow's loss by hand."""
    z = setting

    def by_hand(student, target):
        batch, s, t = off_diagonal(z)
        u = s + 0.1 * (t - s)
        x, later = (LINEAR.point(batch["x0"], batch["x1"], time) for time in (s, u))
        apart = flow_map(student, x, s, t, {}) - flow_map(target, later, u, t, {})
        quotient = apart / (u - s)[:, None]
        weight = 1 / (flat_sum(quotient**2) + 0.01)
        return 2 * flat_sum(student(x, s, t, {}) * stop_gradient(weight[:, None] * quotient))

    alpha = z.map_gradient("alpha_flow", schedule="exponential", between=(0.1, 0.1), **HALVES)
    assert_same(alpha, z.gradient(by_hand), rtol=1e-9)  # a difference of near points, divided


def test_the_terminal_loss_of_tvm_is_lsd(setting):
    """With the student's own weights as the average: the Lagrangian residual at TVM's times, beside flow matching."""
    z = setting
    s, t = times.gap(-0.8, 1.0, 0.4, 1.0)(rows.fold(z.keys, 1))
    r = times.law("logit_normal", 0.4, 1.0)(rows.fold(z.keys, 2))

    def by_hand(student, target):
        x, velocity = drawn_point(z, r)
        flow = flat_sum((student(x, r, r, {}) - velocity) ** 2)
        x, _ = drawn_point(z, s)
        return flow + squared(lagrangian(student, x, s, t, own(target), {}))

    assert_same(z.method_gradient("tvm"), z.gradient(by_hand))


def test_improved_mean_flow_along_the_conditional_velocity_is_mean_flow(setting):
    """With dx_s/ds as the second head, the first head's gradient is MeanFlow's."""
    z = setting
    batch, _, _ = off_diagonal(z)

    def with_velocity(net):
        def heads(x, s, t, cond, *, dropout=None):
            return net(x, s, t, cond), batch["x1"] - batch["x0"]

        net.heads = heads
        return net

    improved = z.method_gradient("improved_mean_flow", wrap=with_velocity, **HALVES)
    assert_same(improved, z.method_gradient("mean_flow", **HALVES))


def test_the_consistency_term_of_facm_is_eulerian_at_the_end(setting):
    """Where nothing is clipped and the weight is a constant: relaxed by 1 - sqrt(s), weighted by cos(pi s / 2)."""
    z = setting
    s = times.uniform()(rows.fold(z.keys, 1))
    x, velocity = drawn_point(z, s)

    def by_identity(student, target):
        flow = flat_sum((student(x, s, s, {}) - velocity) ** 2) / 2
        map_ = flat_sum(eulerian(student, x, s, jnp.ones_like(s), velocity, {}) ** 2) / 2
        return flow + (1 - jnp.sqrt(s)) * jnp.cos(jnp.pi * s / 2) * map_ / 1e3

    options = {"cosine": 0.0, "clip": float("inf"), "constant": 1e6, "law": ("uniform",)}
    assert_same(z.method_gradient("facm", **options), z.gradient(by_identity), rtol=1e-5)


def test_the_tangent_of_sct_is_eulerian_at_the_end(setting):
    """On the linear path, whose F at t = 1 is v itself: weighted by alpha = s."""
    z = setting
    s = times.uniform()(rows.fold(z.keys, 1))
    x, velocity = drawn_point(z, s)

    def by_identity(student, target):
        return s * squared(eulerian(student, x, s, jnp.ones_like(s), velocity, {}))

    options = {"law": ("uniform",), "warmup_steps": 0, "constant": 0.0, "learned_weight": False}
    assert_same(z.method_gradient("continuous_consistency", **options), z.gradient(by_identity))


def test_align_your_flow_without_its_normalization_is_the_eulerian_residual(setting):
    """r = 1 and c = 0: MeanFlow's gradient on every pair of times."""
    z = setting
    s, t = times.sorted_pair(times.uniform())(rows.fold(z.keys, 1))
    x, velocity = drawn_point(z, s)

    def by_identity(student, target):
        return squared(eulerian(student, x, s, t, velocity, {}))

    options = {"law": ("uniform",), "warmup_steps": 0, "most": 1.0, "constant": 0.0}
    assert_same(z.method_gradient("align_your_flow", **options), z.gradient(by_identity))


def test_consistency_training_is_the_semigroup_with_the_paths_own_first_leg(setting):
    """In units of state: |X_s1(x_s) - X_u1(x_u)|^2 = (1 - s)^2 |semigroup|^2, u the next of eight times."""
    z = setting
    s = jnp.floor(8 * times.uniform()(rows.fold(z.keys, 1))) / 8
    x, _ = drawn_point(z, s)
    chord = LINEAR.chord(z.batch["x0"], z.batch["x1"], s, s + 1 / 8)

    def by_identity(student, target):
        share = 1 / 8 / (1 - s)
        legs = semigroup(student, target, x, s, jnp.ones_like(s), share, {}, first=chord)
        return (1 - s) ** 2 * squared(legs)

    ct = z.method_gradient("consistency", schedule="doubling", intervals=(8, 8))
    assert_same(ct, z.gradient(by_identity))
