"""One training step: a pure function (state, batch) -> (state, metrics) over the players of a method.

Each player in its turn takes the gradient of its loss over the parameters that it owns, everything else stopped, and
updates them; what is its own (parameters, optimizer state, averages) moves together in this turn, and nowhere else. A
loss is a mean over the rows of the global batch, taken once, here.
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
from jaxtyping import Bool, Int

from flowmaps import ema, rows, sharding, stages
from flowmaps.couplings import Coupling
from flowmaps.optimizers import Optimizer
from flowmaps.state import TrainState, owned
from flowmaps.types import Array, Batch, Keys, Method, Params, Roles

Bind = Callable[[Params], Callable]
"""Parameters -> the role's callable."""
Projection = Callable[[Params], Params]
"""Parameters -> the nearest of those that the role's network may have."""


class View(NamedTuple):
    """An extra role without a network of its own: another way to look at a role's parameters."""

    role: str
    bind: Bind


Metrics = dict[str, Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]

STREAMS = {"init": 0, "rows": 1}
"""What is drawn from a run's seed: the initial weights, and all that belongs to rows."""


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
    projections: Mapping[str, Projection] = {},
) -> Step:
    """The step of a method whose roles are `binds`, on a batch of rows cut over `mesh`, in `accumulate` parts. `guide`
    makes the teacher that the losses see of the roles that are bound. What an update makes of the parameters of a role
    that has a projection goes through it, and so into the averages.

    Rows have keys of their own, from (seed, step, row): one stream draws the source, one serves each player's loss.
    Metrics of players other than the student carry the player's name; those of a step without its turn are NaN, but
    for the number of updates that it has skipped.
    """

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        state = stages.begin(method, optimizers, state)
        key = jax.random.fold_in(jax.random.key(seed), STREAMS["rows"])
        keys = rows.keys(key, state.step, batch["x1"].shape[0])
        keys = lax.with_sharding_constraint(keys, sharding.rows(mesh))
        batch = {**batch, "x0": coupling(batch["x1"], batch.get("x0"), rows.fold(keys, 0))}
        metrics = {}
        for stream, player in enumerate(method.losses, start=1):
            turn = partial(take_turn, player, batch=batch, keys=rows.fold(keys, stream))
            state, measured = in_its_period(turn, method.periods.get(player, 1), state)
            measured["skipped"] = state.skipped[player]
            prefix = "" if player == "student" else f"{player}/"
            metrics |= {prefix + name: value for name, value in measured.items()}
        return state.replace(step=state.step + 1), metrics

    def take_turn(player: str, state: TrainState, *, batch: Batch, keys: Keys) -> tuple[TrainState, Metrics]:
        mine = {role: state.params[role] for role in owned(method, player)}

        def loss(mine: dict[str, Params], part: tuple[Batch, Keys]) -> tuple[Array, Metrics]:
            rest = {role: p for role, p in state.params.items() if role not in mine}
            roles = guide(bind_roles(binds, mine, rest, state.target, views))
            value = method.losses[player](roles, *part, state.step)
            return value.per_example.mean(), {n: m.astype(jnp.result_type(m, float)) for n, m in value.metrics.items()}

        (value, measured), gradient = mean_gradient(loss, mine, (batch, keys), accumulate, mesh)
        norm = optax.tree.norm(gradient)
        n = optimizers[player].count(state.opt_state[player])
        measured |= {"loss": value, "grad_norm": norm, "learning_rate": optimizers[player].learning_rate(n)}
        finite = jnp.isfinite(value) & jnp.isfinite(norm)
        moved = apply_gradient(state, player, optimizers[player], gradient, projections)
        updated = average(method, player, n, moved)
        kept = jax.tree.map(partial(jnp.where, finite), updated, state)
        return count(kept, player, finite), measured

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
    gradient: dict[str, Params],
    projections: Mapping[str, Projection],
) -> TrainState:
    """The state after the player's update: with its next parameters, and its optimizer's next state."""
    mine = {role: state.params[role] for role in gradient}
    updates, opt_state = optimizer.update(gradient, state.opt_state[player], mine)
    mine = optax.apply_updates(mine, updates)
    projected = {role: projections[role](mine[role]) for role in mine if role in projections}
    params = {**state.params, **mine, **projected}
    return state.replace(params=params, opt_state={**state.opt_state, player: opt_state})


def average(method: Method, player: str, n: Int[Array, ""], state: TrainState) -> TrainState:
    """The state in which the averages of the player's networks have taken in its update number `n`, counted from 0."""
    params = state.params
    mine = [role for role in owned(method, player) if role in state.extras_ema]
    moved = {role: ema.update(state.extras_ema[role], params[role], n) for role in mine}
    state = state.replace(extras_ema={**state.extras_ema, **moved})
    if player != "student":
        return state
    state = state.replace(ema=ema.update(state.ema, params["student"], n))
    if method.target_decay is None:
        return state
    return state.replace(target=ema.mix(state.target, params["student"], method.target_decay(state.step)))


def count(state: TrainState, player: str, finite: Bool[Array, ""]) -> TrainState:
    """The state in which the player's turn has been counted: as an update that it took, or as one skipped."""
    in_a_row = jnp.where(finite, 0, state.skipped_in_a_row[player] + 1)
    most = jnp.maximum(in_a_row, state.most_skipped_in_a_row[player])
    return state.replace(
        skipped={**state.skipped, player: state.skipped[player] + ~finite},
        skipped_in_a_row={**state.skipped_in_a_row, player: in_a_row},
        most_skipped_in_a_row={**state.most_skipped_in_a_row, player: most},
    )


def in_its_period(
    turn: Callable[[TrainState], tuple[TrainState, Metrics]], period: int, state: TrainState
) -> tuple[TrainState, Metrics]:
    """`turn` at every `period`-th step, counted from 1; otherwise the state as it is and metrics of NaN."""
    if period == 1:
        return turn(state)

    def rest(state: TrainState) -> tuple[TrainState, Metrics]:
        _, metrics = jax.eval_shape(turn, state)
        return state, jax.tree.map(lambda m: jnp.full(m.shape, jnp.nan, m.dtype), metrics)

    return lax.cond((state.step + 1) % period == 0, turn, rest, state)
