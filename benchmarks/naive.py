"""Three methods as they are mostly written, beside ours, whose gradients are the same.

    python -m benchmarks.naive

- MeanFlow guided by kappa: the derivative, and both velocities of guidance in a call each, of the whole batch, and what
  diagonal rows do not need multiplied by 0 (the released JAX code of arXiv:2505.13447);
- improved MeanFlow guided: the same, and the network's own velocity once for the scale without and once with its
  interval (the released JAX code of arXiv:2512.02012, whose network has two heads of 8 layers of its own);
- shortcut: legs of all rows, and a mask between the flow's target and theirs. The released code of arXiv:2410.12557
  cuts its batch as ours does; ports of it mask.

They were written from these algorithms on our networks, with our draws of times and dropped labels. For each a line of
Markdown: the work of loss and gradient in evaluations of the network, and in steps of flow matching with one head; the
memory that XLA plans beside the arguments; and seconds on this machine, alternating, their median and quartiles. The
numbers are in results/naive.jsonl.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.lax import stop_gradient
from jaxtyping import Bool, Float

from benchmarks import records, step_cost
from benchmarks.counting import matmul_flops
from flowmaps import interpolants, methods, networks, rows, times
from flowmaps.guidance import with_guidance, without_labels
from flowmaps.identities import directional_derivative
from flowmaps.methods import _terms
from flowmaps.rows import expand
from flowmaps.types import NULL_LABEL, Array, Batch, Keys, Loss, LossFn, Method, Params, Roles
from flowmaps.weightings import adaptive, squared

PATH = interpolants.linear()
KAPPA, DROPOUT, SCALES = 0.5, 0.1, (1.0, 8.0)
LAW = ("logit_normal", 0.4, 1.0)
LEVELS = 7
ROWS, DEPTH = 32, 4
"""Of what is run."""


def dealt(keys: Keys, group: int, first: int) -> Bool[Array, " b"]:
    """Which rows are the first of each group of consecutive ones."""
    return jnp.arange(keys.shape[0]) % group < first


def chosen(which: Bool[Array, " b"], one: Float[Array, "b *d"], other: Float[Array, "b *d"]) -> Float[Array, "b *d"]:
    """Of each row one or the other."""
    return jnp.where(which.reshape(-1, *(1,) * (one.ndim - 1)), one, other)


def mean_flow(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
    """MeanFlow with kappa, 3 of 4 rows on the diagonal."""
    cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), DROPOUT)
    s, t = times.sorted_pair(times.law(*LAW))(rows.fold(keys, 1))
    t = jnp.where(dealt(keys, 4, 3), s, t)
    x, velocity = _terms.path_point(PATH, batch, s)
    unlabelled = roles.target(x, s, s, without_labels(cond))
    own = roles.target(x, s, s, cond)
    k = expand(jnp.where(cond["label"] != NULL_LABEL, KAPPA, 0.0), x)
    g = stop_gradient(velocity + k * (own - unlabelled))
    v, dv = directional_derivative(lambda x, s: roles.student(x, s, t, cond), (x, s), (g, jnp.ones_like(s)))
    squares = squared(g + expand(t - s, x) * stop_gradient(dv) - v)
    return Loss(adaptive(squares, 1.0, 0.01), {})


def improved_mean_flow(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
    """Improved MeanFlow with guidance, 1 of 2 rows on the diagonal."""
    cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), DROPOUT)
    diagonal = dealt(keys, 2, 1)
    drawn, low, high = (rows.uniform(rows.fold(rows.fold(keys, 3), stream)) for stream in range(3))
    scale = jnp.where(_terms.unlabelled(cond), 1.0, SCALES[0] * (SCALES[1] / SCALES[0]) ** drawn)
    whole = with_guidance(cond, scale)
    within = with_guidance(cond, scale, jnp.stack([low, 1 + high], axis=-1) / 2)
    asked = {**whole, "interval": chosen(diagonal, whole["interval"], within["interval"])}

    s, t = times.sorted_pair(times.on_path(PATH, *LAW))(rows.fold(keys, 1))
    t = jnp.where(diagonal, s, t)
    x, velocity = _terms.path_point(PATH, batch, s)
    plain = roles.target.heads(x, s, s, with_guidance(without_labels(cond), jnp.ones_like(s)))[1]
    own_whole, own_within = (roles.target.heads(x, s, s, c)[1] for c in (whole, within))
    own = chosen(diagonal, own_whole, own_within)
    acts = (asked["interval"][:, 0] <= s) & (s <= asked["interval"][:, 1]) & ~_terms.unlabelled(cond)
    g = stop_gradient(velocity + expand(jnp.where(acts, 1 - 1 / scale, 0.0), x) * (own - plain))

    def at_start(x: Array, s: Array) -> tuple[Array, ...]:
        return roles.student.heads(x, s, t, asked)

    (u, v), (du, _) = directional_derivative(at_start, (x, s), (stop_gradient(own), jnp.ones_like(s)))
    map_ = squared(u - g - expand(t - s, x) * stop_gradient(du))
    return Loss(adaptive(map_, 1.0, 0.01) + adaptive(squared(v - g), 1.0, 0.01), {})


def shortcut(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
    """Shortcut, of 32 rows 24 for the flow, 1 at the smallest step and 7 at larger ones."""
    flow, base = dealt(keys, 32, 24), dealt(keys, 32, 25) & ~dealt(keys, 32, 24)
    drawn = rows.fold(keys, 1)
    at_base = times.multiples(2 ** (LEVELS - 1))(drawn)
    s_b, t_b = times.dyadic(LEVELS - 1)(drawn)
    s = jnp.where(flow, times.uniform()(drawn), jnp.where(base, at_base, s_b))
    t = jnp.where(flow, s, jnp.where(base, s + 2 * 0.5**LEVELS, t_b))
    cond = rows.condition(batch)
    x, velocity = _terms.path_point(PATH, batch, s)
    u = (s + t) / 2
    first = roles.target(x, s, jnp.where(base, s, u), cond)
    middle = x + expand(u - s, x) * first
    second = roles.target(middle, u, jnp.where(base, u, t), cond)
    aim = stop_gradient(chosen(flow, velocity, (first + second) / 2))
    return Loss(squared(roles.student(x, s, t, cond) - aim), {})


class Peer(NamedTuple):
    """A method, and how it is mostly written."""

    method: str
    options: Mapping[str, Any]
    naive: LossFn
    network: str = "dit"


PEERS = {
    "MeanFlow, guided by kappa": Peer("mean_flow", {"kappa": KAPPA, "label_dropout": DROPOUT}, mean_flow),
    "improved MeanFlow, guided": Peer(
        "improved_mean_flow", {"guidance": SCALES, "label_dropout": DROPOUT}, improved_mean_flow, "in_context_dit"
    ),
    "shortcut, 1/4": Peer("shortcut", {"levels": LEVELS}, shortcut),
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="how often the two take turns; 0: nothing is run")
    rounds = parser.parse_args(arguments).rounds

    def shown() -> Iterator[dict[str, Any]]:
        for name in PEERS:
            line = measure(name, rounds)
            print(row(line), flush=True)
            yield line

    print(HEAD)
    records.save("naive", shown(), whole=rounds > 0)


def network(name: str, *, outputs: int | None = None, **options: Any) -> nn.Module:
    """The transformer of a peer, with as many outputs as its method reads."""
    peer, method = PEERS[name], ours(name)
    wanted = {"outputs": outputs or method.heads, "guided": method.guidance is not None}
    given = {"shape": step_cost.SHAPE, "num_classes": step_cost.CLASSES, **wanted}
    return networks.make(peer.network, **given, **step_cost.dit(**options))


def ours(name: str) -> Method:
    return methods.load(PEERS[name].method).make(interpolant=PATH, total_steps=10, **PEERS[name].options)


def gradient(loss: LossFn, module: nn.Module) -> Callable:
    """(parameters, x0, x1, labels) -> the gradient of the student's mean loss."""

    def step(params: Params, x0: Array, x1: Array, label: Array) -> Params:
        keys, batch = rows.keys(jax.random.key(0), 0, len(x0)), {"x0": x0, "x1": x1, "label": label}

        def mean(params: Params) -> Array:
            roles = Roles(networks.bind(module, params), networks.bind(module, stop_gradient(params)))
            return loss(roles, batch, keys, jnp.zeros((), jnp.int32)).per_example.mean()

        return jax.grad(mean)(params)

    return step


def both(name: str, module: nn.Module) -> tuple[Callable, Callable]:
    """The gradients of the naive loss and of ours."""
    return gradient(PEERS[name].naive, module), gradient(ours(name).losses["student"], module)


def given(module: nn.Module) -> tuple:
    """Shapes of what a gradient is taken of."""
    params, x, _, label = step_cost.shapes(module)
    return params, x, x, label


def work(name: str, **size: Any) -> tuple[float, float]:
    """Of the naive gradient and ours, in steps of flow matching with one head of the same network."""
    one, module = network(name, outputs=1, **size), network(name, **size)
    flow = methods.load("flow_matching").make(interpolant=PATH, total_steps=10).losses["student"]
    unit = matmul_flops(gradient(flow, one), *given(one))
    return tuple(matmul_flops(step, *given(module)) / unit for step in both(name, module))


def memory(name: str) -> tuple[float, float]:
    """MiB a row that XLA plans beside the arguments, layers in a scan."""
    module = network(name, scan=True)
    plans = (step_cost.compile_(step, given(module)).memory_analysis() for step in both(name, module))
    return tuple(plan.temp_size_in_bytes / step_cost.BATCH / 2**20 for plan in plans)


def seconds(name: str, rounds: int) -> np.ndarray:
    """Of the naive gradient and ours in turn, [2, rounds], and a first turn that does not count."""
    module = network(name, depth=DEPTH, **({"head_depth": 2} if PEERS[name].network == "in_context_dit" else {}))
    draw = np.random.default_rng(0)
    params, x, _, _ = jax.tree.map(lambda s: draw.normal(0, 0.02, s.shape).astype(np.float32), given(module))
    x0, x1 = (draw.normal(0, 1, (ROWS, *x.shape[1:])).astype(np.float32) for _ in range(2))
    label = np.arange(ROWS, dtype=np.int32) % step_cost.CLASSES
    steps, found = [jax.jit(step) for step in both(name, module)], []
    for _ in range(rounds + 1):
        turn = []
        for step in steps:
            start = time.perf_counter()
            jax.block_until_ready(step(params, x0, x1, label))
            turn.append(time.perf_counter() - start)
        found.append(turn)
    return np.array(found[1:]).T


def measure(name: str, rounds: int) -> dict[str, Any]:
    """A line of the results."""
    line: dict[str, Any] = {"case": name, "network": PEERS[name].network, "work": work(name), "memory": memory(name)}
    if rounds:
        naive, mine = seconds(name, rounds)
        line |= {"naive_seconds": naive.tolist(), "our_seconds": mine.tolist()}
        line["ratio"] = np.percentile(naive / mine, (25, 50, 75)).tolist()
    return line


HEAD = """| method | network | times flow matching, naive | ours | MiB a row, naive | ours | seconds, naive to ours |
|---|---|---|---|---|---|---|"""


def row(line: Mapping[str, Any]) -> str:
    """A row of the table."""
    cells = [f"{value:.2f}" for value in line["work"]] + [f"{value:.0f}" for value in line["memory"]]
    low, median, high = line.get("ratio", (0, 0, 0))
    cells.append(f"{median:.2f} ({low:.2f} to {high:.2f})" if "ratio" in line else "")
    return f"| {line['case']} | `{line['network']}` | {' | '.join(cells)} |"


if __name__ == "__main__":
    main()
