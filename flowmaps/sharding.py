"""Where arrays live: one mesh, the batch cut over all of it, the state copied over "data" and cut over "fsdp".

No collective is written by hand: `jit` derives them from these shardings and the loss is a mean over the global batch.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from flowmaps.errors import UsageError
from flowmaps.types import Array

Tree = TypeVar("Tree")

AXES = ("data", "fsdp")
SMALL = 4096
"""Arrays with fewer elements are copied and never cut: gathering them costs more than keeping them."""


def make_mesh(data: int = -1, fsdp: int = 1) -> Mesh:
    """`data` copies of the state (-1: as many as there are devices for), each cut over `fsdp` devices.

    One process may use fewer devices than it has; of several processes each must take part with all of them.
    Auto axes: Linen under jvp does not run on jax's default, Explicit.

    Raises:
      UsageError: the sizes are not positive, or do not go into the number of devices.
    """
    devices = jax.devices()
    if fsdp < 1 or data < -1 or data == 0:
        raise UsageError(f"mesh.data={data} and mesh.fsdp={fsdp} must be at least 1 (mesh.data=-1: all that are left)")
    if data == -1 and len(devices) % fsdp:
        raise UsageError(f"mesh.fsdp={fsdp} does not divide the {len(devices)} devices: choose a divisor")
    used = fsdp * (data if data > 0 else len(devices) // fsdp)
    if used > len(devices) or (used < len(devices) and jax.process_count() > 1):
        raise UsageError(
            f"mesh.data={data} times mesh.fsdp={fsdp} takes {used} devices, and there are {len(devices)} in "
            f"{jax.process_count()} processes: set mesh.data=-1, or sizes whose product is {len(devices)}"
        )
    shape = (used // fsdp, fsdp)
    # Not jax.make_mesh, which may reorder devices: process p must hold the p-th block of rows.
    return Mesh(np.array(devices[:used]).reshape(shape), AXES, axis_types=(AxisType.Auto,) * 2)


def rows(mesh: Mesh) -> NamedSharding:
    """Arrays [B, ...] cut by rows over all devices."""
    return NamedSharding(mesh, P(AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    """A copy on every device."""
    return NamedSharding(mesh, P())


def state(mesh: Mesh, abstract: Tree, small: int = SMALL) -> Tree:
    """A NamedSharding for every array of a state: parameters, optimizer state and averages by one rule.

    An array of at least `small` elements is cut over "fsdp" along its largest axis that the axis divides; the
    others are copied.
    """
    parts = mesh.shape["fsdp"]

    def of(array: jax.ShapeDtypeStruct) -> NamedSharding:
        axes = [axis for axis in np.argsort(array.shape)[::-1] if array.shape[axis] % parts == 0]
        if parts == 1 or array.size < small or not axes:
            return replicated(mesh)
        return NamedSharding(mesh, P(*("fsdp" if axis == axes[0] else None for axis in range(array.ndim))))

    return jax.tree.map(of, abstract)


def check_batch(mesh: Mesh, batch_size: int, accumulate: int = 1) -> None:
    """Raises UsageError where a global batch cannot be cut evenly over the devices and the parts of a step."""
    if accumulate < 1:
        raise UsageError(f"train.accumulate={accumulate} must be at least 1")
    if batch_size < 1 or batch_size % (mesh.size * accumulate):
        raise UsageError(
            f"train.batch_size={batch_size} is not a multiple of {mesh.size * accumulate} "
            f"({mesh.size} devices x {accumulate} accumulated parts)"
        )


def global_batch(mesh: Mesh, local: dict[str, np.ndarray]) -> dict[str, Array]:
    """The global batch whose contiguous block `local` this process holds: arrays [B, ...] cut by rows."""
    return jax.make_array_from_process_local_data(rows(mesh), local)


def everywhere(mesh: Mesh, here: bool) -> bool:
    """Whether all processes say so, each of which waits for the others."""
    if jax.process_count() == 1:
        return here
    said = global_batch(mesh, {"said": np.full(mesh.size // jax.process_count(), here)})["said"]
    return bool(jax.jit(jnp.all, out_shardings=replicated(mesh))(said))


def cut(tree: Tree, parts: int, devices: int) -> Tree:
    """Arrays [B, ...] -> [parts, B / parts, ...] of which every device cuts its own rows.

    Part p is made of the p-th block of consecutive rows of each device, so that no row changes its device and rows that
    are dealt together into the terms of a loss stay together where a block holds whole groups.
    """

    def of(x: Array) -> Array:
        blocks = x.reshape(devices, parts, -1, *x.shape[1:])
        return blocks.swapaxes(0, 1).reshape(parts, -1, *x.shape[1:])

    return jax.tree.map(of, tree)
