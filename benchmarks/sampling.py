"""Samples a second, of one compiled program against a Python loop over a compiled step: python -m benchmarks.sampling

The loop is the usual one: a call for each step, whose vectors of times are made eagerly. Both make the same samples of
one key with the same network, and return them to the host. They take turns, and what is told is the median over the
rounds of the ratio of their times, with its quartiles: whatever else the machine does then falls on both. Beside it is
the ratio of the processor time that both took, all threads together, which does not know what else the machine does.

Saves results/sampling.jsonl and prints the table of benchmarks/README.md.
"""

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from benchmarks import records
from flowmaps import generate, networks, rows, samplers
from flowmaps.identities import flow_map
from flowmaps.types import Array, Params, Roles

NETWORKS = {
    "digits' perceptron": ("mlp", {"shape": (8, 8, 1), "width": 256, "depth": 4, "residual": True}),
    "small DiT": ("dit", {"shape": (16, 16, 4), "width": 64, "depth": 4, "heads": 2, "patch": 2}),
}
STEPS = (1, 2, 4, 8, 16)
BATCHES = (16, 64)

Generate = Callable[[int], np.ndarray]
"""Seed -> samples [B, ...] on the host."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=21, help="how often the two take turns")
    rounds = parser.parse_args(arguments).rounds

    def shown() -> Iterator[dict[str, Any]]:
        for line in measured(rounds):
            print(row(line), flush=True)
            yield line

    print("| network | batch | steps | program, samples/s | loop, samples/s | ratio (quartiles) | of processor time |")
    print("|---|---|---|---|---|---|---|")
    records.save("sampling", shown())


def measured(rounds: int) -> Iterator[dict[str, Any]]:
    """A line for each network, batch size and number of steps."""
    for (name, (network, options)), batch_size in product(NETWORKS.items(), BATCHES):
        module = networks.make(network, num_classes=0, **options)
        params = drawn(module)
        for steps in STEPS:
            two = program(module, params, batch_size, steps), loop(module, params, batch_size, steps)
            np.testing.assert_allclose(*(generated(0) for generated in two), rtol=1e-3, atol=1e-4)
            (ours, theirs), (our_work, their_work) = alternating(*two, rounds)
            low, median, high = np.percentile(theirs / ours, (25, 50, 75))
            yield {
                "network": name,
                "batch": batch_size,
                "steps": steps,
                "program_seconds": ours.tolist(),
                "loop_seconds": theirs.tolist(),
                "program_per_second": batch_size / float(np.median(ours)),
                "loop_per_second": batch_size / float(np.median(theirs)),
                "ratio": [float(low), float(median), float(high)],
                "work_ratio": float(np.median(their_work) / np.median(our_work)),
            }


def drawn(module: nn.Module) -> Params:
    """Random parameters: at its own, a network begins as zero."""
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(lambda: networks.init(module, jax.random.key(0)))
    return jax.tree.map(lambda p: jnp.asarray(draw.normal(0, 0.02, p.shape), p.dtype), shapes)


def program(module: nn.Module, params: Params, batch_size: int, steps: int) -> Generate:
    """All steps, and the noise that they begin with, as one program."""
    grid = np.linspace(0, 1, steps + 1)

    @jax.jit
    def generated(params: Params, seed: Array) -> Array:
        keys = generate.sample_keys(seed, jnp.arange(batch_size))
        velocity = networks.bind(module, params)
        return samplers.composed(Roles(velocity, velocity), rows.normal(keys, module.shape), grid, keys, {}).x

    return lambda seed: np.asarray(generated(params, seed))


def loop(module: nn.Module, params: Params, batch_size: int, steps: int) -> Generate:
    """A call for each step, and one for the noise."""

    @jax.jit
    def noise(seed: Array) -> Array:
        return rows.normal(generate.sample_keys(seed, jnp.arange(batch_size)), module.shape)

    @jax.jit
    def step(params: Params, x: Array, s: Array, t: Array) -> Array:
        return flow_map(networks.bind(module, params), x, s, t, {})

    def generated(seed: int) -> np.ndarray:
        x = noise(seed)
        for number in range(steps):
            s, t = (jnp.full((batch_size,), n / steps) for n in (number, number + 1))
            x = step(params, x, s, t)
        return np.asarray(x)

    return generated


def alternating(one: Generate, other: Generate, rounds: int) -> tuple[np.ndarray, np.ndarray]:
    """Seconds [2, rounds] of both, by the clock and of the processor; who begins changes from round to round."""
    seconds, work = np.empty((2, 2, rounds))
    for number in range(rounds):
        for which in ((0, 1), (1, 0))[number % 2]:
            start, worked = time.perf_counter(), time.process_time()
            (one, other)[which](number)
            seconds[which, number] = time.perf_counter() - start
            work[which, number] = time.process_time() - worked
    return seconds, work


def row(line: dict[str, Any]) -> str:
    """A row of the table."""
    low, median, high = line["ratio"]
    return (
        f"| {line['network']} | {line['batch']} | {line['steps']} | {line['program_per_second']:,.0f} "
        f"| {line['loop_per_second']:,.0f} | {median:.2f} ({low:.2f} to {high:.2f}) "
        f"| {line['work_ratio']:.2f} |"
    )


if __name__ == "__main__":
    main()
