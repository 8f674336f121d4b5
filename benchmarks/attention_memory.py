"""What attention and its derivatives take of memory and work, by the number of tokens, at once and tile after tile.

    python -m benchmarks.attention_memory
    python -m benchmarks.attention_memory 4096

For each number of tokens and each form of flowmaps/networks/attention.py a line of Markdown: the memory that XLA plans
beside arguments and results, in MiB, and the work of the matrix products in units A, those of one evaluation. Of
attention itself; its gradient; its tangent along all three inputs; the gradient of value and tangent where the tangent
is stopped, as in MeanFlow's loss; and where it is not, in all six inputs, as in LSD's. One example of 6 heads of 64
channels, in float32; nothing is run. The same numbers are in results/attention_memory.jsonl.
"""

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks import records
from benchmarks.counting import matmul_flops
from flowmaps.networks import attention
from flowmaps.types import Array

TOKENS = (256, 512, 1024, 2048, 4096, 8192)
HEADS, CHANNELS = 6, 64
FORMS = {"xla": attention.plain, "blockwise": attention.blockwise}


def tangent(form: Callable, *, stopped: bool = False) -> Callable:
    """(q, k, v, dq, dk, dv) -> attention, and its derivative along (dq, dk, dv)."""

    def both(*given: Array) -> tuple[Array, Array]:
        out, change = jax.jvp(form, given[:3], given[3:])
        return out, jax.lax.stop_gradient(change) if stopped else change

    return both


def gradient(function: Callable, count: int) -> Callable:
    """Of a number that mixes all that the function gives, in the first `count` of its arguments."""

    def mixed(*given: Array) -> Array:
        outs = jax.tree.leaves(function(*given))
        return jnp.sum(jnp.sin(outs[0]) * jnp.cos(outs[-1]))

    return jax.grad(mixed, tuple(range(count)))


DERIVATIVES = {
    "forward": lambda form: lambda *given: form(*given[:3]),
    "grad": lambda form: gradient(lambda *given: form(*given[:3]), 3),
    "jvp": tangent,
    "grad of jvp, stopped": lambda form: gradient(tangent(form, stopped=True), 3),
    "grad of jvp, full": lambda form: gradient(tangent(form), 6),
}
"""Of a form of attention, as functions of (q, k, v, dq, dk, dv)."""


def inputs(tokens: int) -> tuple[jax.ShapeDtypeStruct, ...]:
    return (jax.ShapeDtypeStruct((1, tokens, HEADS, CHANNELS), jnp.float32),) * 6


def temporaries(function: Callable, tokens: int) -> float:
    """MiB that the compiled program has beside what it is given and gives."""
    compiled = jax.jit(function).lower(*inputs(tokens)).compile()
    return compiled.memory_analysis().temp_size_in_bytes / 2**20


def work(function: Callable, tokens: int) -> float:
    """Of matrix products, in evaluations A of the formula."""
    return matmul_flops(function, *inputs(tokens)) / matmul_flops(attention.plain, *inputs(tokens)[:3])


def measure(tokens: int, form: str) -> dict[str, Any]:
    """A line of the results."""
    functions = {name: derivative(FORMS[form]) for name, derivative in DERIVATIVES.items()}
    return {
        "tokens": tokens,
        "attention": form,
        "mib": {name: temporaries(function, tokens) for name, function in functions.items()},
        "work": {name: work(function, tokens) for name, function in functions.items()},
    }


def row(line: Mapping[str, Any]) -> str:
    """Of the table: "MiB / A" for each derivative."""
    cells = (f"{mib:,.0f} / {line['work'][name]:.1f}" for name, mib in line["mib"].items())
    return f"| {line['tokens']:,} | `{line['attention']}` | {' | '.join(cells)} |"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tokens", nargs="*", type=int, default=TOKENS, help="numbers of them")
    chosen = parser.parse_args(arguments).tokens

    def shown() -> Iterator[dict[str, Any]]:
        for tokens, form in product(chosen, FORMS):
            line = measure(tokens, form)
            print(row(line), flush=True)
            yield line

    print(f"| tokens | attention | {' | '.join(DERIVATIVES)} |\n|{'---|' * (2 + len(DERIVATIVES))}")
    records.save("attention_memory", shown(), whole=chosen == TOKENS)


if __name__ == "__main__":
    main()
