"""Methods of several players: what a turn moves, what belongs to whom, and runs of them that end as one that was not
interrupted, on any devices."""

import json
import shutil
from itertools import pairwise

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_runs
import tiny
import two_players
from jax.sharding import PartitionSpec as P
from small_steps import everything, experiment, linear_params, number, numbers, pull, run
from test_train import interrupt, losses, saved

from configs import base
from flowmaps import compare, data, evaluate, methods, networks, samplers, train, train_step
from flowmaps import experiment as runs
from flowmaps.checkpoints import Checkpoints
from flowmaps.errors import NonFiniteError, UsageError
from flowmaps.types import Loss, Method

STEPS = 20
PERIOD = 5


@pytest.fixture(autouse=True)
def found(monkeypatch):
    """The method of two players, by its name."""
    load = methods.load
    monkeypatch.setattr(methods, "load", lambda name: two_players if name == "two_players" else load(name))


def make_config(**changed):
    """A run of the two, whose critic has an optimizer and an average of its own."""
    config = tiny.get_config("eight")
    config.method = base.part(methods, "two_players")
    config.players.critic = {
        "network": base.part(networks, "mlp", width=8, depth=1),
        "optimizer": {"name": "adamw", "learning_rate": 3e-3, "schedule": "cosine"},
        "ema": (0.9,),
    }
    config.train.update(log_every=1, steps=STEPS, checkpoint_every=6)
    config.update_from_flattened_dict(changed)
    return config.lock()


def test_a_step_costs_what_its_players_do_each_by_its_period():
    """Of the critic's turn all at period 1, a fifth at 5 and a twentieth at 20."""
    cost = [compare.passes_per_row(runs.build(make_config(**{"method.period": n}))) for n in (1, 5, 20)]
    turn = (cost[0] - cost[1]) / 0.8
    np.testing.assert_allclose(cost[0] - cost[2], 0.95 * turn, rtol=1e-4)
    assert turn > 3


def batches(exp):
    loader = data.loader(exp.examples, batch_size=exp.config.train.batch_size, seed=exp.config.seed)
    return (runs.global_batch(exp, batch) for batch in loader)


def taken(exp, steps):
    """The states before the first step and after each of them, and the metrics of each."""
    state, stream, take = runs.init(exp), batches(exp), runs.train_step(exp)
    states, history = [jax.device_get(state)], []
    for _ in range(steps):
        state, measured = take(state, next(stream))
        states.append(jax.device_get(state))
        history.append(jax.device_get(measured))
    return states, history


def moved(before, after):
    """ "field/name" of what differs in any bit, and of nothing that differs in some of its arrays alone."""

    def parts(state):
        fields = ("params", "opt_state", "ema", "extras_ema")
        named = {f"{field}/{name}": part for field in fields for name, part in getattr(state, field).items()}
        return {name: jax.tree.leaves(part) for name, part in named.items()} | {"target": jax.tree.leaves(state.target)}

    old, new = parts(before), parts(after)
    changes = {n: {bool(np.any(a != b)) for a, b in zip(old[n], new[n], strict=True)} for n in old}
    assert all(len(either) == 1 for either in changes.values())
    return {name for name, (change,) in changes.items() if change}


OWN = {
    "student": {"params/student", "opt_state/student", "ema/0.9", "ema/0.99", "target"},
    "critic": {"params/critic", "params/head", "opt_state/critic", "extras_ema/critic", "extras_ema/head"},
    "fake": {"params/fake", "opt_state/fake"},
}
PERIODS = {"student": 2, "critic": 3, "fake": 5}


def test_a_turn_moves_all_that_is_the_players_own_and_nothing_else_by_a_bit():
    """Every loss reads every role; what belongs to a player changes at the multiples of its period, and only then."""
    method = Method(
        dict.fromkeys(PERIODS, everything),
        samplers.composed,
        owners={"critic": "critic", "head": "critic", "fake": "fake", "teacher": "frozen", "still": "frozen"},
        periods=PERIODS,
        target_decay=lambda step: 0.9,
    )
    params = {role: linear_params(seed) for seed, role in enumerate(("student", *method.owners))}
    others = {"critic": (0.9,), "head": (0.5, 0.9)}
    step, current, batch = experiment(method, params, name="adam", decays=(0.9, 0.99), other_decays=others)
    for n in range(1, 11):
        before = jax.device_get(current)
        current, _ = step(current, batch)
        due = [player for player, period in PERIODS.items() if n % period == 0]
        assert moved(before, jax.device_get(current)) == set().union(*(OWN[player] for player in due)), n


@pytest.mark.float64
def test_an_average_takes_in_each_update_of_its_player_once():
    """a <- a + (1 - min(decay, (1 + n) / (10 + n))) (p - a) after update n of the player, whatever its period is; an
    update that was not finite is none."""

    def broken_once(roles, batch, keys, step):
        loss = pull("student", "critic")(roles, batch, keys, step)
        return loss._replace(per_example=jnp.where(step == 3, jnp.nan, loss.per_example))

    method = Method(
        {"student": broken_once, "critic": pull("critic", "student", -2.0)},
        samplers.composed,
        owners={"critic": "critic"},
        periods={"student": 2, "critic": 3},
        target_decay=lambda step: 0.75,
    )
    given = numbers(student=1.0, critic=3.0)
    decays = {"decays": (0.2, 0.999), "other_decays": {"critic": (0.15, 0.999)}}
    current, _ = run(*experiment(method, given, binds=dict.fromkeys(given, number), **decays), steps=12)
    p, q = {"value": 1.0, "updates": 0}, {"value": 3.0, "updates": 0}
    target, p_averages, q_averages = 1.0, {0.2: 1.0, 0.999: 1.0}, {0.15: 3.0, 0.999: 3.0}

    def update(player, gradient, averages):
        player["value"] -= 0.1 * gradient
        n = player["updates"]
        player["updates"] += 1
        for decay, average in averages.items():
            averages[decay] += (1 - min(decay, (1 + n) / (10 + n))) * (player["value"] - average)

    for step in range(1, 13):
        if step % 2 == 0 and step != 4:
            update(p, p["value"] - q["value"], p_averages)
            target += 0.25 * (p["value"] - target)
        if step % 3 == 0:
            update(q, q["value"] + 2 * p["value"], q_averages)
    averages = {"ema": (current.ema, p_averages), "extras_ema": (current.extras_ema["critic"], q_averages)}
    for ours, expected in averages.values():
        assert list(ours) == [str(decay) for decay in expected]
        np.testing.assert_allclose([a["p"] for a in ours.values()], list(expected.values()), rtol=1e-13)
    np.testing.assert_allclose(current.target["p"], target, rtol=1e-13)
    assert (p["updates"], q["updates"], current.skipped["student"]) == (5, 4, 1)


def test_counts_of_a_player_at_rest_are_not_numbers():
    """Though they are whole ones."""

    def counted(roles, batch, keys, step):
        return Loss(roles.extras["critic"]() * jnp.ones(batch["x1"].shape[0]), {"rows": jnp.array(len(batch["x1"]))})

    method = Method(
        {"student": pull("student", "critic"), "critic": counted},
        samplers.composed,
        owners={"critic": "critic"},
        periods={"critic": 2},
    )
    params = numbers(student=1.0, critic=3.0)
    _, history = run(*experiment(method, params, binds=dict.fromkeys(params, number), batch=8), steps=4)
    np.testing.assert_array_equal([m["critic/rows"] for m in history], [np.nan, 8, np.nan, 8])


def test_a_schedule_and_a_norm_to_clip_to_are_the_players_own():
    """The critic's rate runs over its own four updates, each of which is rate x clip_norm long."""
    own = {"name": "sgd", "learning_rate": 0.5, "schedule": "cosine", "clip_norm": 1e-3}
    config = make_config(**{"players.critic.optimizer": own, "optimizer.schedule": "linear"})
    states, history = taken(runs.build(config), STEPS)
    at_rest = np.arange(1, STEPS + 1) % PERIOD != 0
    rates = np.array([m["critic/learning_rate"] for m in history])
    np.testing.assert_array_equal(np.isnan(rates), at_rest)
    expected = 0.5 * (1 + np.cos(np.pi * np.arange(4) / 4)) / 2
    np.testing.assert_allclose(rates[~at_rest], expected, rtol=1e-6)
    np.testing.assert_allclose([m["learning_rate"] for m in history], 1e-3 * (1 - np.arange(STEPS) / STEPS), rtol=1e-6)
    weights = [jnp.concatenate([p.ravel() for p in jax.tree.leaves(s.params["critic"])]) for s in states]
    lengths = np.array([np.linalg.norm(b - a) for a, b in pairwise(weights)])
    np.testing.assert_array_equal(lengths[at_rest], 0)
    np.testing.assert_allclose(lengths[~at_rest], 1e-3 * expected, rtol=1e-3)


LARGE = {
    "network.width": 64,
    "network.depth": 2,
    "players.critic.network.width": 64,
    "players.critic.network.depth": 2,
    "method.period": 2,
    "train.steps": 4,
}


def test_players_are_cut_over_devices_by_one_rule_and_learn_what_one_device_does(tmp_path):
    """And their checkpoint is read on another number of devices, to the bit."""
    one, many = (runs.build(make_config(**LARGE, **mesh)) for mesh in ({"mesh.data": 1}, {"mesh.fsdp": 4}))
    abstract = runs.abstract_state(many)
    jax.tree.map(lambda a, b: chex.assert_equal(a.sharding, b.sharding), runs.init(many), abstract)
    for player, average in (("student", abstract.ema["0.999"]), ("critic", abstract.extras_ema["critic"]["0.9"])):
        own = (abstract.params[player], abstract.opt_state[player], average)
        cut = [[a.sharding.spec != P() for a in jax.tree.leaves(part)] for part in own]
        assert [sum(part) for part in cut] == [1, 2, 1]
    (expected, expected_history), (states, history) = taken(one, 4), taken(many, 4)
    for ours, theirs in zip(history, expected_history, strict=True):
        np.testing.assert_allclose(list(ours.values()), list(theirs.values()), rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(states[-1]), jax.tree.leaves(expected[-1]), strict=True):
        assert np.linalg.norm(ours - theirs) <= 1e-5 * np.linalg.norm(theirs)
    placed = jax.tree.map(lambda array, a: jax.device_put(array, a.sharding), states[-1], abstract)
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(4, placed, {}, {}, wait=True)
        chex.assert_trees_all_equal(jax.device_get(checkpoints.restore(runs.abstract_state(one)).state), states[-1])


@pytest.fixture
def no_conclusion(monkeypatch):
    monkeypatch.setattr(train, "conclude", lambda config, workdir: {})


def test_a_run_interrupted_between_updates_ends_as_one_that_was_not_to_the_bit(tmp_path, monkeypatch, no_conclusion):
    """The critic's updates are those of steps 5, 10, 15 and 20."""
    config = make_config()
    train.run(config, tmp_path / "whole")
    for steps, end in ((7, 7), (6, 13)):
        with monkeypatch.context() as patch:
            interrupt(patch, step=steps)
            assert train.run(config, tmp_path / "parts")["step"] == end
    assert train.run(config, tmp_path / "parts")["step"] == STEPS
    (state, position), (again, position_again) = (saved(config, tmp_path / name) for name in ("whole", "parts"))
    assert position == position_again
    chex.assert_trees_all_equal(state, again)
    assert losses(tmp_path / "whole") == losses(tmp_path / "parts")
    assert set(state.extras_ema) == {"critic"} and np.any(state.params["critic"]["Dense_0"]["kernel"])
    turns = [line["step"] for line in losses(tmp_path / "parts") if line["critic/loss"] is not None]
    assert turns == [5, 10, 15, 20]


def test_a_player_that_stays_not_finite_ends_the_run_though_the_others_are_well(tmp_path, monkeypatch, no_conclusion):
    """It is named, and so is what to change; its turns in a row count, not the steps. One turn that is finite in
    between lets the run go on."""
    make, bad = two_players.make, {10, 15, 20}

    def poisoned(**options):
        method = make(**options)

        def broken(roles, batch, keys, step):
            loss = method.losses["critic"](roles, batch, keys, step)
            wrong = jnp.isin(step + 1, jnp.array(sorted(bad)))
            return loss._replace(per_example=jnp.where(wrong, jnp.nan, loss.per_example))

        return method._replace(losses={**method.losses, "critic": broken})

    monkeypatch.setattr(two_players, "make", poisoned)
    config = make_config(**{"train.max_skipped": 3, "train.steps": 40})
    message = (
        r"step 21: 3 updates in a row were not finite and were skipped by player 'critic': lower "
        r"players\.critic\.optimizer\.learning_rate or players\.critic\.optimizer\.clip_norm"
    )
    with pytest.raises(NonFiniteError, match=message) as stopped:
        train.run(config, tmp_path / "stopped")
    assert stopped.value.exit_code == 3
    bad = {10, 15, 25, 30}
    assert train.run(config, tmp_path / "goes_on")["step"] == 40
    lines = losses(tmp_path / "goes_on")
    assert [line["critic/skipped"] for line in lines][::PERIOD] == [0, 0, 1, 2, 2, 3, 4, 4]
    assert {line["skipped"] for line in lines} == {0}


@pytest.mark.parametrize("path", ["linear", "trigonometric"])
def test_a_role_that_starts_from_the_teacher_is_the_teacher_at_first(tmp_path, path):
    """As a function, to the bit: its network, which is another than the student's, its prediction and its own path."""
    teacher = small_runs.plane("flow_matching", network__width=16, coupling__scale=1.0)
    teacher.interpolant = base.part(base.interpolants, path)
    teacher.prediction = base.part(base.predictions, "data")
    small_runs.save(teacher, tmp_path / "teacher")
    config = make_config(**{"method.from_teacher": True, "method.period": 1, "coupling.scale": 1.0})
    with config.unlocked():
        del config.players.critic.network
        config.teacher.workdir = str(tmp_path / "teacher")
    exp = runs.build(config)
    state = runs.init(exp)
    assert state.params["critic"]["Dense_0"]["kernel"].shape[1] == 16
    assert state.params["student"]["Dense_0"]["kernel"].shape[1] == 8
    for copy in (state.params["critic"], state.extras_ema["critic"]["0.9"]):
        chex.assert_trees_all_equal(jax.device_get(copy), jax.device_get(state.params["teacher"]))
    x, s, t = jax.random.normal(jax.random.key(0), (6, 2)), jnp.linspace(0.1, 0.8, 6), jnp.linspace(0.2, 0.9, 6)
    roles = train_step.bind_roles(runs.binds(exp), {}, state.params)
    fake, expected, student = (v(x, s, t, {}) for v in (roles.extras["critic"], roles.teacher, roles.student))
    np.testing.assert_array_equal(fake, expected)
    assert np.abs(fake - student).min() > 1e-4
    before = jax.device_get(state.params)
    state, _ = runs.train_step(exp)(state, next(batches(exp)))
    after = jax.device_get(state.params)
    chex.assert_trees_all_equal(after["teacher"], before["teacher"])
    assert np.all(after["critic"]["Dense_2"]["kernel"] != before["critic"]["Dense_2"]["kernel"])


def test_a_student_is_measured_and_drawn_without_the_other_roles(tmp_path):
    """Neither the teacher's run nor the players' networks are asked for."""
    small_runs.save(small_runs.plane("flow_matching", network__width=16), tmp_path / "teacher")
    config = make_config(**{"method.from_teacher": True, "train.steps": 5, "coupling.scale": 1 / 3**0.5})
    with config.unlocked():
        del config.players.critic.network
        config.teacher.workdir = str(tmp_path / "teacher")
    train.run(config, tmp_path / "run")
    first = evaluate.run(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "teacher")
    alone = runs.build(config, training=False)
    assert set(alone.networks) == set(runs.abstract_state(alone).params) == {"student"}
    again = evaluate.run(config, tmp_path / "run")
    assert [row["value"] for row in again] == [row["value"] for row in first]
    assert json.loads((tmp_path / "run" / "config.json").read_text())["players"]["critic"]["ema"] == [0.9]


def test_decays_out_of_their_range_or_place_are_refused():
    with pytest.raises(UsageError, match=r"players\.critic\.ema=\(1\.5,\): a decay lies in \[0, 1\)"):
        runs.build(make_config(**{"players.critic.ema": (1.5,)}))
    config = make_config()
    with config.unlocked():
        config.players.student = {"ema": (0.9,)}
    with pytest.raises(UsageError, match=r"players\.student\.ema: the decays of the student's averages are train\.ema"):
        runs.build(config)


def test_roles_without_averages_keep_none():
    """The default; and the frozen ones never have any."""
    config = make_config(**{"players.critic.ema": ()})
    assert runs.init(runs.build(config)).extras_ema == {}
    method = runs.build(config).method._replace(owners={"critic": "frozen"})
    assert runs.decays(make_config(), method) == {"student": (0.999,)}


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"method.period": 0}, "updates its critic every 0 steps: this must be at least 1 and at most train.steps=20"),
        ({"method.period": 21}, "updates its critic every 21 steps: this must be at least 1 and at most train.steps"),
        (
            {"players.log_variance.optimizer": {"b1": 0.0}},
            "players.log_variance.optimizer is of no player: those of me",
        ),
        ({"method.from_teacher": True}, "players.critic.network is given, and 'critic' has that of the teacher"),
    ],
)
def test_what_is_said_of_players_in_vain_is_refused(changed, message):
    with pytest.raises(UsageError, match=message):
        runs.build(make_config(**changed))
