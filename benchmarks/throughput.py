"""How fast an accelerator trains: images a second, the share of its peak and memory, at the largest batch that fits.

    python -m benchmarks.throughput
    python -m benchmarks.throughput --networks DiT-B/2 --methods MeanFlow --peak=275e12

Train steps by AdamW of transformers on 32x32x4 in bfloat16, layers in a scan of which the products with weights are
kept, on the devices of this process. Batches are doubled until one does not fit. The share of the peak counts the
operations of the step's floor alone (floors.py): what a step computes anew, or in vain, does not raise it. The numbers
are in results/throughput.jsonl.
"""

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from benchmarks import records, step_cost, training
from benchmarks.floors import CASES, work
from flowmaps import networks, sharding

NETWORKS = {
    "DiT-B/2": {"width": 768, "depth": 12, "heads": 12},
    "DiT-XL/2": {"width": 1152, "depth": 28, "heads": 16},
}
METHODS = ("flow matching", "MeanFlow", "LSD", "sCT")
FIXED = {"sCT": {"learned_weight": False}}
"""What keeps a method to one network."""
WARM, STEPS = 3, 20
SMALLEST = 16
PEAK = 989e12
"""Of an H100 or H200 in bfloat16, a second, as its maker states it."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--attention", default="auto", choices=("auto", "xla", "blockwise"))
    parser.add_argument("--peak", type=float, default=PEAK, help="operations a second of a device")
    chosen = parser.parse_args(arguments)

    def shown() -> Iterator[dict[str, Any]]:
        for network, method in product(chosen.networks, chosen.methods):
            module = make_network(attention=chosen.attention, **NETWORKS[network])
            line = {"network": network, "method": method, **largest(method, module, chosen.peak)}
            print(row(line), flush=True)
            yield line

    print("| network | method | batch | images/s | of the peak | peak memory, GiB |\n|---|---|---|---|---|---|")
    records.save("throughput", shown())


def make_network(**options: Any) -> nn.Module:
    """Without classes."""
    given = {"patch": 2, "dtype": "bfloat16", "scan": True, "remat": "dots", **options}
    return networks.make("dit", shape=step_cost.SHAPE, num_classes=0, **given)


def largest(name: str, module: nn.Module, peak: float) -> dict[str, Any]:
    """Of the largest batch that fits. Raises where the smallest one does not."""
    size, line = SMALLEST, measure(name, module, SMALLEST, peak)
    while True:
        size *= 2
        try:
            line = measure(name, module, size, peak)
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return line


def measure(name: str, module: nn.Module, batch_size: int, peak: float, steps: int = STEPS) -> dict[str, Any]:
    """The speed of `steps` steps after those that warm up, and the memory."""
    devices, mesh, case = jax.devices(), sharding.make_mesh(), CASES[name]
    method = step_cost.make_method(case._replace(options={**case.options, **FIXED.get(name, {})}))
    made = training.make(method, module, mesh, batch_size)
    state = made.create()
    x1 = jax.random.normal(jax.random.key(0), made.batch["x1"].shape, jnp.float32)
    batch = {"x1": jax.device_put(x1, sharding.rows(mesh))}
    for _ in range(WARM):
        state, _ = made.step(state, batch)
    jax.block_until_ready(state)
    start = time.perf_counter()
    for _ in range(steps):
        state, _ = made.step(state, batch)
    jax.block_until_ready(state)
    seconds = (time.perf_counter() - start) / steps
    memory = [(device.memory_stats() or {}).get("peak_bytes_in_use") for device in devices]
    return {
        "device": devices[0].device_kind,
        "devices": len(devices),
        "batch": batch_size,
        "seconds": seconds,
        "images_per_second": batch_size / seconds,
        "of_peak": batch_size * floor(name, module) / seconds / len(devices) / peak,
        "memory": None if None in memory else max(memory),
    }


def floor(name: str, module: nn.Module) -> float:
    """Operations that an image of a step has to take."""
    unit = step_cost.unit(module)
    return work(CASES[name].rows["student"], unit.tangent) * unit.evaluation / step_cost.BATCH


def row(line: Mapping[str, Any]) -> str:
    """A row of the table."""
    memory = "not told" if line["memory"] is None else f"{line['memory'] / 2**30:.1f}"
    speed = f"{line['images_per_second']:,.0f} | {line['of_peak']:.0%}"
    return f"| {line['network']} | {line['method']} | {line['batch']} | {speed} | {memory} |"


if __name__ == "__main__":
    main()
