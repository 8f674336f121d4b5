"""What the gradient of every method's loss costs, in evaluations F of one diffusion transformer, beside its floor.

    python -m benchmarks.step_cost
    python -m benchmarks.step_cost LSD MeanFlow --compile

For each method a line of Markdown: the floor of floors.py, with F and the tangent's T as they are counted of this very
network; the work of all its players' losses and gradients, with layers written out, and in a scan of which the products
with weights are kept (remat "dots"); and the ratio to flow matching. With --compile also XLA's own count, of two layers
written out, and the memory that it plans beside the arguments of twelve in a scan, without and with remat, a row: half
a minute a method. All of them are kept in results/step_cost.jsonl.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import ShapeDtypeStruct
from jax.lax import stop_gradient
from jax.stages import Compiled

from benchmarks import records
from benchmarks.counting import matmul_flops
from benchmarks.floors import CASES, Case, work
from flowmaps import adversaries, interpolants, methods, networks, rows
from flowmaps.state import owned
from flowmaps.types import Array, LastLayer, LossFn, Method, Params, Roles

SHAPE, CLASSES, BATCH = (32, 32, 4), 10, 64
"""Latents of 256x256 images; a batch that every method can deal."""


class Unit(NamedTuple):
    """Work of one network for a batch."""

    evaluation: float
    """F, in flops."""
    tangent: float
    """T / F: beside an evaluation."""


class Cost(NamedTuple):
    """Of a step of all players, in evaluations F."""

    floor: float
    counted: float


class Plan(NamedTuple):
    """Of the compiled programs of all players."""

    work: float
    """In evaluations F; elementwise work is in it, and of a loop one round."""
    memory: float
    """Of the dearest player, beside its arguments, in MiB a row."""


def dit(**options: Any) -> dict[str, Any]:
    """A transformer's options: of 12 layers, or as `options` has them."""
    return {"width": 384, "depth": 12, "heads": 6, "patch": 2, **options}


def make_method(case: Case) -> Method:
    path = interpolants.linear()
    method = methods.load(case.method).make(interpolant=path, total_steps=10, **case.options)
    return adversaries.opposed(method, interpolant=path, **case.adversary)


def make_network(method: Method, options: Mapping[str, Any]) -> nn.Module:
    wanted = {"outputs": method.heads, "guided": method.guidance is not None}
    return networks.make("dit", shape=SHAPE, num_classes=CLASSES, **wanted, **options)


def shapes(module: nn.Module) -> tuple[Params, Array, Array, Array]:
    """Of the parameters, and of a batch's x, times and labels."""
    params = jax.eval_shape(lambda: networks.init(module, jax.random.key(0)))
    times = ShapeDtypeStruct((BATCH,), jnp.float32)
    return params, ShapeDtypeStruct((BATCH, *SHAPE), jnp.float32), times, ShapeDtypeStruct((BATCH,), jnp.int32)


def unit(module: nn.Module) -> Unit:
    """The work of an evaluation, and what a tangent in x and s adds to it."""

    def forward(params: Params, x: Array, s: Array, label: Array) -> Array:
        return networks.bind(module, params)(x, s, s, {"label": label})

    def along(params: Params, x: Array, s: Array, label: Array) -> tuple[Array, Array]:
        return jax.jvp(lambda x, s: forward(params, x, s, label), (x, s), (x, s))

    evaluation = matmul_flops(forward, *shapes(module))
    return Unit(evaluation, matmul_flops(along, *shapes(module)) / evaluation - 1)


def gradient(loss: LossFn, mine: Sequence[str], module: nn.Module) -> Callable:
    """(parameters by role, x0, x1, labels) -> the gradient of a loss's mean in the roles `mine`. The student, the
    target, the teacher and the fake are the network; critics and other roles cost nothing."""

    def step(params: Mapping[str, Params], x0: Array, x1: Array, label: Array) -> dict[str, Params]:
        batch, keys = {"x0": x0, "x1": x1, "label": label}, rows.keys(jax.random.key(0), 0, len(x0))

        def mean(trained: Mapping[str, Params]) -> Array:
            roles = make_roles(module, {**stop_gradient(params), **trained})
            return loss(roles, batch, keys, jnp.zeros((), jnp.int32)).per_example.mean()

        return jax.grad(mean)({role: params[role] for role in mine})

    return step


def make_roles(module: nn.Module, params: Mapping[str, Params]) -> Roles:
    """All roles that any method asks for."""
    student, last = params["student"], networks.load("dit").last_kernel(params["student"])
    layer, name = last

    def with_kernel(kernel: Array) -> Callable:
        return networks.bind(module, {**student, layer: {**student[layer], name: kernel}})

    def inside(params: Params) -> Callable:
        def maps(x: Array, t: Array, cond: Mapping) -> tuple[Array, ...]:
            shown: list[Array] = []
            networks.bind(module, params, shown)(x, t, t, cond)
            return tuple(shown)

        return maps

    def critic(maps: tuple[Array, ...], t: Array, cond: Mapping) -> Array:
        return params["critic"] * jnp.stack([m.sum(axis=range(1, m.ndim)) for m in maps], axis=-1)

    extras = {
        "fake": networks.bind(module, params["fake"]),
        "inside_fake": inside(params["fake"]),
        "inside_teacher": inside(params["teacher"]),
        "critic": critic,
        "log_variance": lambda s, t: params["log_variance"] * s,
        "last_layer": LastLayer(student[layer][name], with_kernel),
    }
    target, teacher = (networks.bind(module, p) for p in (stop_gradient(student), params["teacher"]))
    return Roles(networks.bind(module, student), target, teacher, extras)


def shapes_of_roles(module: nn.Module) -> dict[str, Params]:
    """The parameters of all roles: a network's, or one number."""
    params, number = shapes(module)[0], ShapeDtypeStruct((), jnp.float32)
    return dict.fromkeys(("student", "teacher", "fake"), params) | dict.fromkeys(("critic", "log_variance"), number)


def gradients(case: Case, module: nn.Module) -> Iterator[tuple[Callable, tuple]]:
    """Of each player the gradient, and the shapes that it is of."""
    method, (_, x, _, label) = make_method(case), shapes(module)
    for player in case.rows:
        step = gradient(method.losses[player], owned(method, player), module)
        yield step, (shapes_of_roles(module), x, x, label)


def network(case: Case, **options: Any) -> nn.Module:
    """The transformer that a case trains."""
    return make_network(make_method(case), dit(**options))


def count(case: Case, module: nn.Module) -> Cost:
    """Floor and work of a case's players together. What is computed anew to save memory is in the second alone."""
    measured = unit(module)
    flops = sum(matmul_flops(step, *given) for step, given in gradients(case, module))
    floor = sum(work(dealt, measured.tangent) for dealt in case.rows.values())
    return Cost(floor, flops / measured.evaluation)


def compile_(function: Callable, given: tuple) -> Compiled:
    """The program for arguments of given shapes. Its machine code, of which nothing is told here, is made quickly."""
    return jax.jit(function).lower(*given).compile({"xla_backend_optimization_level": 0})


def compiled(case: Case, module: nn.Module) -> Plan:
    """What XLA says of the players' gradients."""
    programs = [compile_(step, given) for step, given in gradients(case, module)]
    flops = sum(program.cost_analysis()["flops"] for program in programs)
    most = max(program.memory_analysis().temp_size_in_bytes for program in programs)
    return Plan(flops / unit(module).evaluation, most / BATCH / 2**20)


def measure(name: str, *, compile_too: bool) -> dict[str, Any]:
    """A line of the results."""
    case = CASES[name]
    floor, counted = count(case, network(case))
    saving = {"scan": True, "remat": "dots"}
    line = {"case": name, "floor": floor, "work": counted, "kept": count(case, network(case, **saving)).counted}
    if compile_too:
        line["xla"] = compiled(case, network(case, depth=2)).work
        line["memory"] = compiled(case, network(case, scan=True)).memory
        line["memory_kept"] = compiled(case, network(case, **saving)).memory
    return line


def row(line: Mapping[str, Any], least: float) -> str:
    """A row of the table, `least` the work of flow matching."""
    works = [f"{line[key]:.2f}" if key in line else "" for key in ("floor", "work", "kept", "xla")]
    memory = [f"{line[key]:.0f}" if key in line else "" for key in ("memory", "memory_kept")]
    return " | ".join(["", line["case"], *works, f"{line['work'] / least:.2f}", *memory, ""]).strip()


HEAD = """| method | floor, F | work, F | with remat, F | XLA, F | times flow matching | MiB a row | with remat |
|---|---|---|---|---|---|---|---|"""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", help="names of floors.py; none: all")
    parser.add_argument("--compile", action="store_true", help="XLA's count and its plan of memory too")
    chosen = parser.parse_args(arguments)
    unknown = [name for name in chosen.cases if name not in CASES]
    if unknown:
        parser.error(f"unknown case {unknown[0]!r}: choose from {', '.join(map(repr, CASES))}")

    def shown() -> Iterator[dict[str, Any]]:
        least = count(CASES["flow matching"], network(CASES["flow matching"])).counted
        for name in chosen.cases or CASES:
            line = measure(name, compile_too=chosen.compile)
            print(row(line, least), flush=True)
            yield line

    print(HEAD)
    records.save("step_cost", shown(), whole=chosen.compile and not chosen.cases)


if __name__ == "__main__":
    main()
