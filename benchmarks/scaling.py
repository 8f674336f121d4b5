"""What a training step costs each of n devices, and what it sends: python -m benchmarks.scaling [--target=v4:2x2x1]

For three methods on a DiT of width 384 and depth 2, few rows a device: the arithmetic, the memory and the collectives
of the step as it is compiled for n devices, with copies of the state or with the state cut over them (FSDP). Nothing
runs. The devices are virtual ones of this machine's CPU, or with --target the cores of a TPU, for which libtpu compiles
where there is none (TPU_SKIP_MDS_QUERY=1 TPU_ACCELERATOR_TYPE=v4-16 TPU_WORKER_HOSTNAMES=localhost). From what is sent
and from the bandwidths below follows a modelled efficiency of DiT-B/2.

Saves results/scaling.jsonl, or scaling_tpu.jsonl, and prints the tables of benchmarks/README.md.
"""

import argparse
from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import AxisType, Mesh
from jax.stages import Compiled

from benchmarks import hlo, records, training
from benchmarks.floors import CASES, work
from flowmaps import interpolants, methods, networks, sharding
from flowmaps.types import Method

METHODS = {"flow_matching": 4, "mean_flow": 4, "shortcut": 32}
"""The rows of a device: 4, or the fewest that hold whole groups of the method's terms."""
SHAPE = (32, 32, 4)
NETWORK = {"width": 384, "depth": 2, "heads": 6, "patch": 2}
COUNTS = (1, 2, 4, 8)


class Machine(NamedTuple):
    """Devices that are joined, as their makers state them."""

    devices: int
    peak: float
    """Operations in bfloat16 a second, of each."""
    bandwidth: float
    """Bytes a second that each sends around a ring."""


MACHINES = {
    "TPU v4-32": Machine(16, 275e12, 90e9),  # one ring both ways, 45 GB/s each; the torus has two more
    "8 x H100": Machine(8, 989e12, 450e9),  # NVLink, one way
}
UTILISATION = 0.4
"""The share of the peak that the arithmetic of a step is assumed to reach."""
PARAMETERS, FORWARD = 130e6, 46e9
"""Of DiT-B/2 on 32x32x4: numbers in float32, and operations of a forward pass of one image."""
FLOORS = {"flow_matching": "flow matching", "mean_flow": "MeanFlow", "shortcut": "shortcut, 1/4"}
"""By method, the case of floors.py that says what an image of a step costs."""
TANGENT = 1.1
"""Of a transformer, in forward passes."""
IMAGES = (4, 16, 64)
"""A device's, in the model."""


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", default="cpu", help="cpu, or a TPU's topology such as v4:2x2x1, which needs libtpu")
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS), help="all by default")
    chosen = parser.parse_args(arguments)
    target = chosen.target
    jax.config.update("jax_num_cpu_devices", max(COUNTS))

    def shown() -> Iterator[dict[str, Any]]:
        devices = find_devices(target)
        for line in measured(devices, chosen.methods, COUNTS if target == "cpu" else (len(devices),)):
            print(row(line), flush=True)
            yield line

    print("| method | devices | cut | GFLOP | arguments MiB | temporaries MiB | sent, MiB of results (calls) |")
    print("|---|---|---|---|---|---|---|")
    records.save("scaling" if target == "cpu" else "scaling_tpu", shown())
    print("\n| machine | images a device | method | step ms | all-reduce ms | efficiency, overlap none to full |")
    print("|---|---|---|---|---|---|")
    for (name, machine), images, method in product(MACHINES.items(), IMAGES, METHODS):
        compute, send = step_seconds(machine, images, method), reduce_seconds(machine, 4 * PARAMETERS)
        print(
            f"| {name} | {images} | {method} | {1e3 * compute:.2f} | {1e3 * send:.2f} "
            f"| {compute / (compute + send):.0%} to {compute / max(compute, send):.0%} |"
        )


def find_devices(target: str) -> list[jax.Device]:
    """Of this machine, or those that a TPU of a topology would have."""
    if target == "cpu":
        return jax.devices("cpu")
    from jax.experimental import topologies

    return list(topologies.get_topology_desc(target, platform="tpu").devices)


def measured(devices: Sequence[jax.Device], names: Sequence[str], counts: Sequence[int]) -> Iterator[dict[str, Any]]:
    """A line for each method, number of devices and way to keep the state: "data" copies it, "fsdp" cuts it."""
    module = networks.make("dit", shape=SHAPE, num_classes=0, **NETWORK)
    for name, count in product(names, counts):
        method = methods.load(name).make(interpolant=interpolants.linear(), total_steps=1_000)
        for cut in ("data", "fsdp") if count > 1 else ("data",):
            sizes = (count, 1) if cut == "data" else (1, count)
            mesh = Mesh(np.array(devices[:count]).reshape(sizes), sharding.AXES, axis_types=(AxisType.Auto,) * 2)
            found = costs(compiled(method, module, mesh, METHODS[name] * count))
            yield {"device": devices[0].device_kind, "method": name, "devices": count, "cut": cut, **found}


def compiled(method: Method, module: nn.Module, mesh: Mesh, batch_size: int) -> Compiled:
    """The train step's program."""
    made = training.make(method, module, mesh, batch_size)
    return made.step.lower(made.start, made.batch).compile()


def costs(compiled: Compiled) -> dict[str, Any]:
    """Of one device and one step: operations (the network has no loop, whose body XLA would count once), bytes of the
    arguments and of temporaries, and by kind of collective how many there are and the bytes of their results."""
    memory, sent = compiled.memory_analysis(), hlo.collectives(compiled.as_text())
    return {
        "flops": compiled.cost_analysis()["flops"],
        "arguments": memory.argument_size_in_bytes,
        "temporaries": memory.temp_size_in_bytes,
        "collectives": dict(sent.calls),
        "bytes": dict(sent.bytes),
    }


def row(line: dict[str, Any]) -> str:
    """A row of the table."""
    sent = ", ".join(f"{kind} {size / 2**20:.1f} ({line['collectives'][kind]})" for kind, size in line["bytes"].items())
    return (
        f"| {line['method']} | {line['devices']} | {line['cut']} | {line['flops'] / 1e9:.2f} "
        f"| {line['arguments'] / 2**20:.1f} | {line['temporaries'] / 2**20:.0f} | {sent or 'nothing'} |"
    )


def step_seconds(machine: Machine, images: int, method: str) -> float:
    """Of a step's arithmetic on DiT-B/2, at the assumed share of the peak."""
    return images * work(CASES[FLOORS[method]].rows["student"], TANGENT) * FORWARD / (UTILISATION * machine.peak)


def reduce_seconds(machine: Machine, size: float) -> float:
    """Of an all-reduce of so many bytes around a ring: each device sends 2 (n - 1) / n of them."""
    n = machine.devices
    return 2 * (n - 1) / n * size / machine.bandwidth


if __name__ == "__main__":
    main()
