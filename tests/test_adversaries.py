"""Critics and what they play: where each player rests, penalties, and a critic beside any method."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.scipy.special import ndtri
from laws import COUNT, LAWS, LINEAR, Features, draw_batch, stray

from flowmaps import adversaries, methods, networks, rows
from flowmaps.errors import UsageError
from flowmaps.types import LastLayer, Roles

COUNT_OF_ROWS = 20_000
NORMAL = ndtri((jnp.arange(COUNT_OF_ROWS) + 0.5) / COUNT_OF_ROWS)[:, None]
"""Quantiles of the standard normal law, each as likely."""
TIMES = jnp.ones(COUNT_OF_ROWS)
MEAN, STD = 0.5, 0.8


def quadratic(theta):
    """D(x) = a + b x + c x^2."""
    return lambda maps, t, cond: theta[0] + theta[1] * maps[0] + theta[2] * maps[0] ** 2


def log_ratio(mean, std):
    """Of N(mean, std^2) to N(0, 1)."""
    return jnp.asarray([-(mean**2) / std**2 / 2 - jnp.log(std), mean / std**2, 0.5 - 0.5 / std**2])


def loss_of(player, theta, real, made, **options):
    adversary = adversaries.make(**options)
    roles = Roles(None, None, extras={"critic": quadratic(theta)})
    return getattr(adversary, f"{player}_loss")(roles, real, made, TIMES[: len(real)], {})


@pytest.mark.parametrize(("mean", "std"), [(MEAN, STD), (0.0, 1.0)])
def test_the_critic_rests_at_the_log_ratio_of_the_densities(mean, std):
    """Which is quadratic for Gaussians, and 0 where the laws are equal."""
    slope = jax.grad(lambda theta: loss_of("critic", theta, mean + std * NORMAL, NORMAL).mean())
    np.testing.assert_allclose(slope(log_ratio(mean, std)), 0, atol=2e-4)
    for away in 0.3 * jnp.eye(3):
        assert slope(log_ratio(mean, std) + away) @ away > 0.005


def test_the_student_climbs_the_log_ratio_by_its_error():
    """-(1 - sigmoid(D)) grad D, with D = log p/q; exactly 0 where the laws are equal."""
    theta = log_ratio(MEAN, STD)
    slope = jax.grad(lambda made: loss_of("student", theta, made, made).sum())(NORMAL)
    logit = quadratic(theta)((NORMAL,), None, None)
    expected = -(1 - jax.nn.sigmoid(logit)) * (theta[1] + 2 * theta[2] * NORMAL)
    np.testing.assert_allclose(slope, expected, rtol=1e-5, atol=1e-6)
    same = jax.grad(lambda made: loss_of("student", log_ratio(0.0, 1.0), made, made).sum())(NORMAL)
    assert np.all(same == 0)


@pytest.mark.float64
def test_a_linear_head_on_linear_features_rests_at_the_discriminant_of_fisher():
    """Between N(m, C) and N(0, C) seen by features A x: the logistic game's head w has A' w = C^-1 m, and no other
    direction, whichever invertible A."""
    grid = ndtri((jnp.arange(200) + 0.5) / 200)
    normal = jnp.stack(jnp.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    root, mean, mixed = jnp.asarray([[0.9, 0.0], [0.5, 0.7]]), jnp.asarray([0.6, -0.4]), jnp.asarray([[2.0, 1], [0, 3]])
    made = normal @ root.T
    adversary = adversaries.make(sees="features")
    seen = Features()
    seen.heads = lambda x: (x @ mixed.T,)

    def slope(head):
        critic = {"critic": lambda maps, t, cond: maps[0] @ head[:2, None] + head[2], "features": seen}
        roles = Roles(None, None, extras=critic)
        return adversary.critic_loss(roles, made + mean[None], made, jnp.ones(len(made)), {}).mean()

    fisher = jnp.linalg.solve(root @ root.T, mean)
    at_rest = jnp.append(jnp.linalg.solve(mixed.T, fisher), -fisher @ mean / 2)
    np.testing.assert_allclose(jax.grad(slope)(at_rest), 0, atol=2e-3)
    for away in 0.3 * jnp.eye(3):
        assert jax.grad(slope)(at_rest + away) @ away > 0.005


def test_hinge_asks_no_more_than_a_margin():
    real, made = jnp.ones((4, 1)), -jnp.ones((4, 1))
    assert np.all(loss_of("critic", jnp.asarray([0.0, 1.0, 0.0]), real, made, game="hinge") == 0)
    assert np.all(loss_of("critic", jnp.asarray([0.0, 0.5, 0.0]), real, made, game="hinge") == 1)


def test_relativistic_players_swap_the_rows():
    real, made = NORMAL[:10], NORMAL[5:15]
    critic = loss_of("critic", log_ratio(MEAN, STD), real, made, game="relativistic")
    np.testing.assert_array_equal(critic, loss_of("student", log_ratio(MEAN, STD), made, real, game="relativistic"))


@pytest.mark.parametrize("weights", [(3.0, 0.0), (0.0, 5.0), (3.0, 5.0)])
def test_penalties_are_half_the_squared_slopes(weights):
    """Of D = b x + c x^2, at the real rows and at the made ones."""
    theta = jnp.asarray([0.1, 0.7, 0.4])
    real, made = NORMAL[:50], 2 + NORMAL[100:150]
    penalty = loss_of("critic", theta, real, made, penalties=weights) - loss_of("critic", theta, real, made)
    slopes = [theta[1] + 2 * theta[2] * x[:, 0] for x in (real, made)]
    np.testing.assert_allclose(penalty, sum(w * s**2 / 2 for w, s in zip(weights, slopes, strict=True)), rtol=1e-4)


def test_values_out_of_range_are_refused():
    with pytest.raises(UsageError, match=r"penalties=\(1.0, -1.0\) must be two weights of at least 0"):
        adversaries.make(penalties=(1.0, -1.0))
    with pytest.raises(UsageError, match=r"adversary\.weight=-1\.0 and adversary\.start=0 must be at least 0"):
        adversaries.opposed(PLAIN, interpolant=LINEAR, weight=-1.0)


ORACLE = LAWS["gaussian"]()
KEYS = rows.keys(jax.random.key(0), 0, 512)
BATCH = draw_batch(ORACLE.sample, KEYS)
PLAIN = methods.load("lsd").make(interpolant=LINEAR, total_steps=10)


def linear_critic(direction):
    return lambda maps, t, cond: maps[0] @ direction[:, None]


def opposed_loss(theta, step, *, player="student", direction=(0.3, -0.2), critic_theta=None, **options):
    """The mean loss of a player of lsd with a critic, where the student strays by theta."""
    method = adversaries.opposed(PLAIN, interpolant=LINEAR, **options)
    exact = ORACLE.average_velocity
    student = stray(exact, theta)
    kernel = jnp.ones((1, COUNT))
    layer = LastLayer(kernel, lambda kernel: stray(exact, theta + 0.1 * (kernel - 1)[0]))
    critic = linear_critic(jnp.asarray(direction) if critic_theta is None else critic_theta)
    extras = {"critic": critic, "last_layer": layer}
    roles = Roles(student, stray(exact, jax.lax.stop_gradient(theta)), None, extras)
    return method.losses[player](roles, BATCH, KEYS, jnp.asarray(step))


def test_no_weight_leaves_a_method_as_it_is():
    assert adversaries.opposed(PLAIN, interpolant=LINEAR) is PLAIN


def test_the_term_counts_from_its_start_on_with_its_weight():
    theta = 0.1 * jnp.ones(COUNT)
    before, after = (opposed_loss(theta, step, weight=0.5, start=7) for step in (6, 7))
    term = after.metrics["game"]
    roles = Roles(stray(ORACLE.average_velocity, theta), stray(ORACLE.average_velocity, theta))
    own = PLAIN.losses["student"](roles, BATCH, rows.fold(KEYS, 0), jnp.asarray(6)).per_example
    np.testing.assert_array_equal(before.per_example, own)
    np.testing.assert_allclose((after.per_example - before.per_example).mean(), 0.5 * term, rtol=1e-5)


def test_the_critics_loss_moves_the_critic_alone():
    theta, direction = 0.1 * jnp.ones(COUNT), jnp.asarray([0.3, -0.2])

    def loss(theta, direction):
        return opposed_loss(theta, 0, player="critic", critic_theta=direction, weight=1.0).per_example.mean()

    of_student, of_critic = jax.grad(loss, argnums=(0, 1))(theta, direction)
    assert np.all(of_student == 0) and np.all(of_critic != 0)


def test_a_flat_critic_leaves_the_fixed_point_where_it_is():
    """At equality D = log p/q is 0 everywhere: the method's own gradient is all there is."""

    def slope(**options):
        return jax.grad(lambda theta: opposed_loss(theta, 9, direction=(0.0, 0.0), **options).per_example.mean())

    theta = 0.1 * jnp.ones(COUNT)
    np.testing.assert_array_equal(slope(weight=1.0, start=99)(theta), slope(weight=1.0)(theta))


def test_the_adaptive_weight_makes_the_gradients_equally_long():
    """In the last layer, and it is what the term is multiplied by, with its weight."""
    theta, options = 0.1 * jnp.ones(COUNT), {"weight": 0.5, "start": 0}
    layer = LastLayer(
        jnp.ones((1, COUNT)), lambda kernel: stray(ORACLE.average_velocity, theta + 0.1 * (kernel - 1)[0])
    )
    found = opposed_loss(theta, 0, adaptive=True, **options)
    plain, without = opposed_loss(theta, 0, **options), opposed_loss(theta, 0, weight=0.5, start=9)

    def own(kernel):
        roles = Roles(layer(kernel), stray(ORACLE.average_velocity, theta))
        return PLAIN.losses["student"](roles, BATCH, rows.fold(KEYS, 0), jnp.asarray(0)).per_example.mean()

    def term(kernel):
        return opposed_loss(theta + 0.1 * (kernel - 1)[0], 0, weight=1.0).metrics["game"]

    lengths = [jnp.linalg.norm(jax.grad(f)(layer.kernel)) for f in (own, term)]
    ratio = found.metrics["game_ratio"]
    np.testing.assert_allclose(ratio * (lengths[1] + 1e-4), lengths[0], rtol=1e-4)
    added = found.per_example.mean() - without.per_example.mean()
    np.testing.assert_allclose(added, 0.5 * ratio * plain.metrics["game"], rtol=1e-3)


def test_both_of_two_adaptive_weights_are_balanced():
    """A method that balances its own two terms, CTM, and the critic beside it: the second ratio is of the gradients of
    what the method loses, its first ratio held, and of the critic's term."""
    ctm = methods.load("ctm").make(interpolant=LINEAR, total_steps=10, adaptive=True)
    method = adversaries.opposed(ctm, interpolant=LINEAR, weight=0.5, adaptive=True)
    theta, kernel = 0.1 * jnp.ones(COUNT), jnp.ones((1, COUNT))
    still = stray(ORACLE.average_velocity, theta)

    def student(kernel):
        return stray(ORACLE.average_velocity, theta + 0.1 * (kernel - 1)[0])

    critic = {"critic": linear_critic(jnp.asarray([0.3, -0.2]))}
    roles = Roles(student(kernel), still, None, {**critic, "last_layer": LastLayer(kernel, student)})
    found = method.losses["student"](roles, BATCH, KEYS, jnp.asarray(0)).metrics

    def own(kernel):
        """With the first ratio as it was found."""
        plain = methods.load("ctm").make(interpolant=LINEAR, total_steps=10, weights=(1.0, float(found["ratio"])))
        roles = Roles(student(kernel), still)
        return plain.losses["student"](roles, BATCH, rows.fold(KEYS, 0), jnp.asarray(0)).per_example.mean()

    def term(kernel):
        plain = adversaries.opposed(PLAIN, interpolant=LINEAR, weight=1.0)
        roles = Roles(student(kernel), still, None, critic)
        return plain.losses["student"](roles, BATCH, KEYS, jnp.asarray(0)).metrics["game"]

    lengths = [jnp.linalg.norm(jax.grad(f)(kernel)) for f in (own, term)]
    assert found["game_ratio"] > 1e-3
    np.testing.assert_allclose(found["game_ratio"] * (lengths[1] + 1e-4), lengths[0], rtol=1e-4)


def test_a_critic_comes_once_and_to_a_map():
    options = {"interpolant": LINEAR, "total_steps": 9}
    with pytest.raises(UsageError, match="puts a critic beside a method, and this one has its own: set it to 0"):
        adversaries.opposed(methods.load("dmd2").make(**options), interpolant=LINEAR, weight=1.0)
    with pytest.raises(UsageError, match=r"adversary.weight=1.0 asks for samples in one step, and this method learns"):
        adversaries.opposed(methods.load("flow_matching").make(**options), interpolant=LINEAR, weight=1.0)


def test_a_critic_has_a_logit_for_each_map():
    """A vector's, an image's and the tokens'; that of a map does not see the others."""
    shapes = ((7,), (8, 8, 3), (4, 5))
    module = networks.make("critic", shape=shapes, num_classes=3, width=8, depth=2)
    params = networks.init(module, jax.random.key(0))
    maps = tuple(jax.random.normal(jax.random.key(n), (6, *shape)) for n, shape in enumerate(shapes))
    critic = networks.bind(module, params)
    label = {"label": jnp.arange(6, dtype=jnp.int32) % 3}
    logits = critic(maps, jnp.ones(6), label)
    changed = critic((maps[0], 2 * maps[1], maps[2]), jnp.ones(6), label)
    assert logits.shape == (6, 3)
    np.testing.assert_array_equal(logits[:, (0, 2)], changed[:, (0, 2)])
    assert np.all(logits[:, 1] != changed[:, 1])
