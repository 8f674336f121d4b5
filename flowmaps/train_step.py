"""One training step: a pure function (state, batch) -> (state, metrics) over the players of a method.

Each player in its turn takes the gradient of its loss over the parameters that it owns, everything else stopped, and
updates them. A loss is a mean over the rows of the global batch, taken once, here.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jaxtyping import Bool

from flowmaps import ema, rows, sharding, stages
from flowmaps.couplings import Coupling
from flowmaps.optimizers import Optimizer
from flowmaps.state import TrainState, owned
from flowmaps.types import Array, Batch, Keys, Method, Params, Roles

Bind = Callable[[Params], Callable]
"""Parameters -> the role's callable."""


class View(NamedTuple):
    """An extra role without a network of its own: another way to look at a role's parameters."""

    role: str
    bind: Bind


Metrics = dict[str, Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]

STREAMS = {"init": 0, "rows": 1}
"""What is drawn from a run's seed: the initial weights, and all that belongs to rows."""


class Outcome(NamedTuple):
    """What became of a player's update in a step: taken, skipped because it was not finite, or not due (neither)."""

    taken: Bool[Array, ""]
    skipped: Bool[Array, ""]


def make(
    method: Method,
    *,
    binds: Mapping[str, Bind],
    coupling: Coupling,
    optimizers: Mapping[str, Optimizer],
    mesh: Mesh,
    seed: int,
    accumulate: int = 1,
    guide: Callable[[Roles], Roles] = lambda roles: roles,
    views: Mapping[str, View] = {},
) -> Step:
    """The step of a method whose roles are `binds`, on a batch of rows cut over `mesh`, in `accumulate` parts. `guide`
    makes the teacher that the losses see of the roles that are bound.

    Rows have keys of their own, from (seed, step, row): one stream draws the source, one serves each player's loss.
    Metrics of players other than the student carry the player's name; those of a step without its update are NaN.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        state = stages.begin(method, optimizers, state)
        key = jax.random.fold_in(jax.random.key(seed), STREAMS["rows"])
        keys = rows.keys(key, state.step, batch["x1"].shape[0])
        keys = lax.with_sharding_constraint(keys, sharding.rows(mesh))
        batch = {**batch, "x0": coupling(batch["x1"], batch.get("x0"), rows.fold(keys, 0))}
        metrics, outcomes = {}, []
        for stream, player in enumerate(method.losses, start=1):
            update = partial(take_turn, player, batch=batch, keys=rows.fold(keys, stream))
            state, measured, outcome = in_its_period(update, method.periods.get(player, 1), state)
            prefix = "" if player == "student" else f"{player}/"
            metrics |= {prefix + name: value for name, value in measured.items()}
            outcomes.append(outcome)
        state = finish(method, state, outcomes)
        return state, metrics | {"skipped": state.skipped}

    def take_turn(player: str, state: TrainState, *, batch: Batch, keys: Keys) -> tuple[TrainState, Metrics, Outcome]:
        mine = {role: state.params[role] for role in owned(method, player)}

        def loss(mine: dict[str, Params], part: tuple[Batch, Keys]) -> tuple[Array, Metrics]:
            rest = {role: p for role, p in state.params.items() if role not in mine}
            roles = guide(bind_roles(binds, mine, rest, state.target, views))
            value = method.losses[player](roles, *part, state.step)
            return value.per_example.mean(), dict(value.metrics)

        (value, measured), gradient = mean_gradient(loss, mine, (batch, keys), accumulate, mesh)
        norm = optax.tree.norm(gradient)
        taken = optimizers[player].count(state.opt_state[player])
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        state = apply_gradient(state, player, optimizers[player], mine, gradient, finite)
        measured |= {"loss": value, "grad_norm": norm}
        measured["learning_rate"] = optimizers[player].learning_rate(taken)
        return state, measured, Outcome(finite, ~finite)

    return step


def bind_roles(
    binds: Mapping[str, Bind],
    trained: Mapping[str, Params],
    others: Mapping[str, Params],
    target: Params | None = None,
    views: Mapping[str, View] = {},
) -> Roles:
    """Roles whose gradient reaches the parameters `trained` and no others.

    The target is the student with stopped parameters where `target`, its moving average, is None.
    """
    params = {**trained, **lax.stop_gradient(others)}
    bound = {role: binds[role](p) for role, p in params.items()}
    average = params["student"] if target is None else target
    seen = {name: view.bind(params[view.role]) for name, view in views.items()}
    return Roles(
        student=bound["student"],
        target=binds["student"](lax.stop_gradient(average)),
        teacher=bound.get("teacher"),
        extras={role: f for role, f in bound.items() if role not in ("student", "teacher")} | seen,
    )


def mean_gradient(
    loss: Callable, params: Params, rows_: tuple[Batch, Keys], parts: int, mesh: Mesh
) -> tuple[tuple[Array, Metrics], Params]:
    """value_and_grad of loss(params, rows) -> (mean, metrics), as the mean over `parts` parts of the rows.

    The parts have equal sizes and each is cut from every device's own rows, so the mean is that of the whole batch.
    """
    value_and_grad = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        return value_and_grad(params, rows_)
    _check_blocks(loss, params, rows_, parts * mesh.size)
    cut = sharding.cut(rows_, parts, mesh.size)
    cut = lax.with_sharding_constraint(cut, NamedSharding(mesh, P(None, sharding.AXES)))

    def add(total: Params, part: tuple[Batch, Keys]) -> tuple[Params, tuple[Array, Metrics]]:
        value, gradient = value_and_grad(params, part)
        return jax.tree.map(jnp.add, total, gradient), value

    total, values = lax.scan(add, jax.tree.map(jnp.zeros_like, params), cut)
    return jax.tree.map(lambda v: v.mean(0), values), jax.tree.map(lambda g: g / parts, total)


def _check_blocks(loss: Callable, params: Params, rows_: tuple[Batch, Keys], blocks: int) -> None:
    """Raises the loss's UsageError where one device's block of one part does not hold whole groups of terms: the
    parts would then deal rows to other terms than the whole batch does."""

    def block(x: Array) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((x.shape[0] // blocks, *x.shape[1:]), x.dtype)

    jax.eval_shape(loss, params, jax.tree.map(block, rows_))


def apply_gradient(
    state: TrainState,
    player: str,
    optimizer: Optimizer,
    params: dict[str, Params],
    gradient: dict[str, Params],
    finite: Bool[Array, ""],
) -> TrainState:
    """The player's next parameters and optimizer state; those that it has, to the bit, where `finite` is false."""
    updates, opt_state = optimizer.update(gradient, state.opt_state[player], params)
    new = (optax.apply_updates(params, updates), opt_state)
    kept = jax.tree.map(partial(jnp.where, finite), new, (params, state.opt_state[player]))
    return state.replace(params={**state.params, **kept[0]}, opt_state={**state.opt_state, player: kept[1]})


def in_its_period(
    update: Callable[[TrainState], tuple[TrainState, Metrics, Outcome]], period: int, state: TrainState
) -> tuple[TrainState, Metrics, Outcome]:
    """`update` at every `period`-th step, counted from 1; otherwise the state as it is and metrics of NaN."""
    if period == 1:
        return update(state)

    def rest(state: TrainState) -> tuple[TrainState, Metrics, Outcome]:
        _, metrics, _ = jax.eval_shape(update, state)
        nothing = Outcome(jnp.array(False), jnp.array(False))
        return state, jax.tree.map(lambda m: jnp.full(m.shape, jnp.nan, m.dtype), metrics), nothing

    return lax.cond((state.step + 1) % period == 0, update, rest, state)


def finish(method: Method, state: TrainState, outcomes: list[Outcome]) -> TrainState:
    """Moves the averages and the counters on, once a step."""
    skipped = jnp.any(jnp.stack([o.skipped for o in outcomes]))
    all_taken = jnp.all(jnp.stack([o.taken for o in outcomes]))
    student = state.params["student"]
    target = state.target
    if method.target_decay is not None:
        target = ema.mix(target, student, method.target_decay(state.step))
    in_a_row = jnp.where(skipped, state.skipped_in_a_row + 1, jnp.where(all_taken, 0, state.skipped_in_a_row))
    return state.replace(
        step=state.step + 1,
        target=target,
        ema=ema.update(state.ema, student, state.step),
        skipped=state.skipped + skipped,
        skipped_in_a_row=in_a_row,
        most_skipped_in_a_row=jnp.maximum(in_a_row, state.most_skipped_in_a_row),
    )
