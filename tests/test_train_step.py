"""What a step does to the state: whose parameters move, when, and what is averaged, skipped and drawn."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from small_steps import (
    STEPS,
    everything,
    experiment,
    linear,
    linear_params,
    number,
    numbers,
    pull,
    regression,
    run,
    self_distillation,
)

from flowmaps import couplings, optimizers, rows, samplers, sharding, state, train_step
from flowmaps.types import Loss, Method


def test_the_logged_learning_rate_is_that_of_the_update():
    """Skipped updates leave the optimizer's schedule where it is, and the log says so."""
    method = Method({"student": regression}, samplers.composed)
    step, current, batch = experiment(
        method, {"student": linear_params()}, name="adam", learning_rate=1.0, schedule="cosine"
    )
    bad = {**batch, "x1": batch["x1"] * jnp.nan}
    rates = []
    for given in (batch, bad, bad, batch):
        current, metrics = step(current, given)
        rates.append(float(metrics["learning_rate"]))
    assert rates[1] == rates[2] == rates[3] < rates[0]


def test_a_step_is_traced_once_and_consumes_its_state():
    chex.clear_trace_counter()
    method = Method({"student": regression}, samplers.composed, target_decay=lambda step: 0.9)
    params = {"student": linear_params()}
    made = {"student": optimizers.make("adam", learning_rate=0.1, updates=100)}
    mesh = sharding.make_mesh(1, 1)
    step = train_step.make(
        method,
        binds={"student": linear},
        coupling=couplings.make("independent"),
        optimizers=made,
        mesh=mesh,
        seed=0,
    )
    jitted = jax.jit(chex.assert_max_traces(step, 1), donate_argnums=0)
    eager = state.create(params, method=method, optimizers=made, decays={"student": (0.9, 0.99)})
    first = current = jax.device_put(eager, sharding.replicated(mesh))
    batch = sharding.global_batch(mesh, {"x1": np.ones((8, 2), np.float32)})
    for _ in range(STEPS):
        current, _ = jitted(current, batch)
    assert all(array.is_deleted() for array in jax.tree.leaves(first))
    assert int(current.step) == STEPS


@pytest.mark.parametrize("average", [None, "average"])
@pytest.mark.parametrize("trained", ["student", "critic"])
def test_gradient_reaches_the_players_own_parameters_alone(trained, average):
    """Exactly zero on every other role and on the target; not zero on the player's own."""
    params = {role: linear_params(seed) for seed, role in enumerate(("student", "critic", "teacher", "average"))}
    binds = dict.fromkeys(params, linear)

    def loss(params):
        roles = {role: p for role, p in params.items() if role != "average"}
        mine = {trained: roles.pop(trained)}
        bound = train_step.bind_roles(binds, mine, roles, average and params[average])
        return everything(bound, {"x1": jnp.ones((4, 2))}, None, 0).per_example.mean()

    gradient = jax.grad(loss)(params)
    for role, part in gradient.items():
        norms = [float(jnp.abs(g).max()) for g in jax.tree.leaves(part)]
        assert (min(norms) > 0) if role == trained else norms == [0.0, 0.0], role


def test_target_is_the_student_without_an_average_and_the_average_with_one():
    params = {"student": linear_params(0)}
    x, s = jnp.ones((4, 2)), jnp.zeros(4)
    for average, expected in ((None, params["student"]), (linear_params(1), linear_params(1))):
        target = train_step.bind_roles({"student": linear}, params, {}, average).target
        np.testing.assert_array_equal(target(x, s, s, {}), linear(expected)(x, s, s, {}))


@pytest.mark.float64
@pytest.mark.parametrize("periods", [{}, {"student": 3}, {"critic": 2}, {"student": 2, "critic": 3}])
def test_two_players_alternate_in_order_and_period(periods):
    """p <- p - 0.1 (p - q), then with the new p: q <- q - 0.1 (q + 2 p); each at multiples of its period."""
    losses = {"student": pull("student", "critic"), "critic": pull("critic", "student", -2.0)}
    method = Method(losses, samplers.composed, owners={"critic": "critic"}, periods=periods)
    params = numbers(student=1.0, critic=3.0)
    current, history = run(*experiment(method, params, binds=dict.fromkeys(params, number)), steps=7)
    p, q = 1.0, 3.0
    for n, metrics in enumerate(history, start=1):
        due = {player: n % periods.get(player, 1) == 0 for player in losses}
        np.testing.assert_allclose(metrics["gap"], p - q if due["student"] else np.nan, rtol=1e-13)
        p = p - 0.1 * (p - q) if due["student"] else p
        np.testing.assert_allclose(metrics["critic/gap"], q + 2 * p if due["critic"] else np.nan, rtol=1e-13)
        q = q - 0.1 * (q + 2 * p) if due["critic"] else q
    np.testing.assert_allclose(current.params["student"]["p"], p, rtol=1e-13)
    np.testing.assert_allclose(current.params["critic"]["p"], q, rtol=1e-13)
    assert current.skipped == current.skipped_in_a_row == {"student": 0, "critic": 0}


@pytest.mark.float64
def test_a_role_owned_by_the_student_is_trained_with_it_and_a_frozen_one_stays():
    def loss(roles, batch, keys, step):
        gap = roles.student() + roles.extras["head"]() + roles.extras["still"]()
        return Loss(jnp.broadcast_to(gap**2 / 2, batch["x1"].shape[:1]), {})

    method = Method({"student": loss}, samplers.composed, owners={"head": "student", "still": "frozen"})
    params = numbers(student=1.0, head=2.0, still=3.0)
    current, _ = run(*experiment(method, params, binds=dict.fromkeys(params, number)), steps=1)
    assert {role: float(p["p"]) for role, p in current.params.items()} == pytest.approx(
        {"student": 1 - 0.6, "head": 2 - 0.6, "still": 3}, rel=1e-13
    )


@pytest.mark.float64
def test_target_and_averages_follow_their_recursions():
    """The loss sees the target from before its step; target and averages take in the student after it."""
    method = Method(
        {"student": pull("student", "target", 0.5)},
        samplers.composed,
        target_decay=lambda step: 1 - 1 / (step.astype(float) + 2),
    )
    params = numbers(student=1.0)
    parts = experiment(method, params, binds={"student": number}, decays=(0.5, 0.999))
    current, _ = run(*parts, steps=5)
    p = target = fast = slow = 1.0
    for n in range(5):
        p -= 0.1 * (p - 0.5 * target)
        target += (p - target) / (n + 2)
        warm = (1 + n) / (10 + n)
        fast += (1 - min(warm, 0.5)) * (p - fast)
        slow += (1 - min(warm, 0.999)) * (p - slow)
    ours = [current.params["student"], current.target, current.ema["0.5"], current.ema["0.999"]]
    np.testing.assert_allclose([o["p"] for o in ours], [p, target, fast, slow], rtol=1e-13)


@pytest.mark.float64
def test_updates_end_with_the_projection_of_each_role_that_has_one():
    """Of every player; target and averages take in what has been projected. Here a number is halved."""

    def halve(params):
        return jax.tree.map(lambda p: p / 2, params)

    losses = {"student": pull("student", "target", 0.5), "critic": pull("critic", "free", -2.0)}
    owners = {"critic": "critic", "free": "critic"}
    method = Method(losses, samplers.composed, owners=owners, target_decay=lambda step: 0.75)
    params = numbers(student=1.0, critic=3.0, free=2.0)
    parts = experiment(
        method,
        params,
        binds=dict.fromkeys(params, number),
        decays=(0.1,),
        other_decays={"critic": (0.1,)},
        projections={"student": halve, "critic": halve},
    )
    current, _ = run(*parts, steps=2)
    p = target = p_average = 1.0
    q, q_average, free = 3.0, 3.0, 2.0
    for n in range(2):
        p = (p - 0.1 * (p - 0.5 * target)) / 2
        target += 0.25 * (p - target)
        gap = q + 2 * free
        q, free = (q - 0.1 * gap) / 2, free - 0.2 * gap
        kept = min((1 + n) / (10 + n), 0.1)
        p_average += (1 - kept) * (p - p_average)
        q_average += (1 - kept) * (q - q_average)
    ours = [current.params["student"], current.target, current.ema["0.1"], current.params["critic"]]
    ours += [current.extras_ema["critic"]["0.1"], current.params["free"]]
    np.testing.assert_allclose([o["p"] for o in ours], [p, target, p_average, q, q_average, free], rtol=1e-13)


def test_steps_that_are_not_finite_leave_the_state_to_the_bit_and_are_counted():
    method = Method({"student": regression}, samplers.composed, target_decay=lambda step: 0.9)
    step, current, good = experiment(method, {"student": linear_params()}, name="adam", decays=(0.9,))
    bad = {"x1": good["x1"].at[5, 0].set(jnp.nan)}
    counts, before = [], None
    for batch in (good, bad, bad, good, bad):
        before = jax.device_get(current)
        current, metrics = step(current, batch)
        if batch is bad:
            assert not np.isfinite(metrics["loss"])
            for field in ("params", "opt_state", "ema", "target"):
                chex.assert_trees_all_equal(jax.device_get(getattr(current, field)), getattr(before, field))
        skipped, in_a_row = current.skipped["student"], current.skipped_in_a_row["student"]
        counts.append((int(current.step), int(skipped), int(in_a_row), int(metrics["skipped"])))
    assert counts == [(1, 0, 0, 0), (2, 1, 1, 1), (3, 2, 2, 2), (4, 2, 0, 2), (5, 3, 1, 3)]


def test_a_gradient_that_is_not_finite_is_skipped_though_the_loss_is():
    """sqrt has an infinite slope at 0."""

    def loss(roles, batch, keys, step):
        return Loss(jnp.broadcast_to(jnp.sqrt(roles.student()), batch["x1"].shape[:1]), {})

    method = Method({"student": loss}, samplers.composed)
    current, history = run(*experiment(method, numbers(student=0.0), binds={"student": number}))
    assert [float(m["loss"]) for m in history] == [0.0] * STEPS
    assert current.params["student"]["p"] == 0
    assert current.skipped_in_a_row == {"student": STEPS}


def test_one_player_is_skipped_without_the_others_and_rest_does_not_end_the_row():
    """The critic, due at every other step, is never finite: each of its turns counts, for it alone, and none in between
    resets."""

    def broken(roles, batch, keys, step):
        return Loss(jnp.full(batch["x1"].shape[:1], jnp.nan) * roles.extras["critic"](), {})

    method = Method(
        {"student": pull("student", "critic"), "critic": broken},
        samplers.composed,
        owners={"critic": "critic"},
        periods={"critic": 2},
    )
    params = numbers(student=1.0, critic=3.0)
    current, history = run(*experiment(method, params, binds=dict.fromkeys(params, number)), steps=6)
    np.testing.assert_allclose(current.params["student"]["p"], 3 - 2 * 0.9**6, rtol=1e-6)
    assert current.params["critic"]["p"] == 3
    assert current.skipped == current.skipped_in_a_row == {"student": 0, "critic": 3}
    assert [(int(m["skipped"]), int(m["critic/skipped"])) for m in history] == [(0, n // 2) for n in range(1, 7)]


def test_source_and_losses_draw_from_streams_of_their_own():
    """No two of a row's source and its players' numbers are the same, nor are those of two steps."""

    def draw(roles, batch, keys, step):
        return Loss(0 * roles.student() + jnp.zeros(8), {"drawn": rows.normal(keys, (2,)), "source": batch["x0"]})

    losses = {"student": draw, "critic": draw}
    method = Method(losses, samplers.composed, owners={"critic": "critic"})
    params = numbers(student=1.0, critic=1.0)
    _, history = run(*experiment(method, params, binds=dict.fromkeys(params, number), batch=8), steps=2)
    drawn = np.concatenate([m[name].ravel() for m in history for name in ("source", "drawn", "critic/drawn")])
    assert np.unique(drawn).size == drawn.size == 2 * 3 * 16
    np.testing.assert_array_equal(history[0]["source"], history[0]["critic/source"])


def test_source_that_the_data_bring_is_kept():
    def source(roles, batch, keys, step):
        return Loss(0 * roles.student() + jnp.zeros(8), {"source": batch["x0"]})

    method = Method({"student": source}, samplers.composed)
    step, current, batch = experiment(method, numbers(student=1.0), binds={"student": number}, batch=8)
    stored = jnp.arange(16.0).reshape(8, 2)
    _, metrics = step(current, {**batch, "x0": stored})
    np.testing.assert_array_equal(metrics["source"], stored)


def test_metrics_tell_the_rate_and_the_norm_of_the_gradient():
    method = Method({"student": pull("student", "target", 0.5)}, samplers.composed)
    parts = experiment(
        method, numbers(student=4.0), binds={"student": number}, schedule="cosine", updates=4, clip_norm=1.0
    )
    _, history = run(*parts, steps=4)
    rates = 0.1 * (1 + np.cos(np.pi * np.arange(4) / 4)) / 2
    np.testing.assert_allclose([m["learning_rate"] for m in history], rates, rtol=1e-6)
    p, norms = 4.0, []
    for rate in rates:
        norms.append(p / 2)
        p -= rate * min(p / 2, 1)
    np.testing.assert_allclose([m["grad_norm"] for m in history], norms, rtol=1e-6)
    np.testing.assert_allclose([m["loss"] for m in history], np.square(norms) / 2, rtol=1e-6)
    assert set(history[0]) == {"loss", "gap", "grad_norm", "learning_rate", "skipped"}


def test_state_is_born_cut_where_the_rule_says():
    _, current, _ = experiment(*self_distillation()[:2], mesh=sharding.make_mesh(2, 4), decays=(0.9,))
    kernel = current.ema["0.9"]["Dense_1"]["kernel"]
    assert isinstance(kernel.sharding, NamedSharding)
    assert kernel.addressable_shards[0].data.shape in ((16, 64), (64, 16))
