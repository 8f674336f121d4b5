"""The networks of a run's roles, and the callables that they become with their parameters."""

from collections.abc import Callable, Mapping
from functools import partial

import jax
import numpy as np
from flax import linen as nn
from flax import traverse_util
from ml_collections import ConfigDict

from flowmaps import data, models, networks, predictions
from flowmaps import train_step as step_
from flowmaps.errors import UsageError
from flowmaps.types import Array, Cond, LastLayer, Method, Params, Velocity


def make(
    config: ConfigDict,
    method: Method,
    velocities: Mapping[str, models.Model],
    readings: Mapping[str, models.Reading],
    dataset: data.Dataset,
) -> dict[str, nn.Module]:
    """The network of every role: those of the models, and those that the method owns, which take examples or what
    another role makes of one."""
    own = [role for role in method.owners if role not in velocities]
    missing = [role for role in own if not config.players.get(role, {}).get("network", {}).get("name")]
    if missing:
        raise UsageError(
            f"method {config.method.name!r} needs a network for its role {missing[0]!r}, and the config gives none: "
            f"set config.players.{missing[0]}.network.name"
        )

    found = {role: velocity(model, dataset) for role, model in velocities.items()}
    for role in sorted(own, key=lambda role: role in method.reads):
        section, shape = config.players[role].network, dataset.shape
        if role in method.reads:
            shape = map_shapes(method.reads[role], found, readings, dataset.shape)
        given = {"shape": shape, "num_classes": dataset.num_classes}
        found[role] = networks.make(section.name, **given, **models.options(section))
    return found


def velocity(model: models.Model, dataset: data.Dataset) -> nn.Module:
    """The network of a model, with as many outputs as are read and guidance where it has learned it."""
    section, learned = model.config.network, model.method.guidance is not None
    given = {"shape": dataset.shape, "num_classes": dataset.num_classes}
    outputs = model.method.heads * predictions.outputs(model.config.prediction.name)
    return networks.make(section.name, **given, outputs=outputs, guided=learned, **models.options(section))


def map_shapes(
    source: str, found: Mapping[str, nn.Module], readings: Mapping[str, models.Reading], shape: tuple[int, ...]
) -> tuple[tuple[int, ...], ...]:
    """The shapes of what a network is given that reads "samples", "features" or "inside_ROLE", without the row's."""
    if source == "samples":
        return (shape,)

    def maps(x: Array, t: Array) -> tuple[Array, ...]:
        role = source.removeprefix("inside_")
        params = networks.init(found[role], jax.random.key(0))
        if source == role:
            return networks.bind(found[role], params).heads(x)
        return inside(found[role], readings[role], params)(x, t, {})

    float32 = np.float32
    shown = jax.eval_shape(maps, jax.ShapeDtypeStruct((2, *shape), float32), jax.ShapeDtypeStruct((2,), float32))
    if not shown:
        raise UsageError(
            f"a critic sees the inside of {source.removeprefix('inside_')!r}, and its network shows none: let its file "
            "call self.sow('inside', NAME, LAYER)"
        )
    return tuple(one.shape[1:] for one in shown)


def bind(network: nn.Module, read: models.Reading | None, params: Params) -> Callable:
    """A role's network with its parameters; where it is a velocity, its output read as one."""
    bound = networks.bind(network, params)
    return bound if read is None else read(bound)


def views(name: str, made: Mapping[str, nn.Module], readings: Mapping[str, models.Reading]) -> dict[str, step_.View]:
    """The extra roles that are made of other roles' parameters: "last_layer", of the student where its network's file,
    `name`, knows it, and "inside_ROLE", of each velocity."""
    seen = {f"inside_{role}": step_.View(role, partial(inside, made[role], read)) for role, read in readings.items()}
    last_kernel = getattr(networks.load(name), "last_kernel", None)
    if last_kernel is not None:
        student = partial(bind, made["student"], readings["student"])
        seen["last_layer"] = step_.View("student", partial(last_layer, student, last_kernel))
    return seen


def projections(made: Mapping[str, nn.Module]) -> dict[str, step_.Projection]:
    """By role, the `project` of those networks that have one."""
    return {role: network.project for role, network in made.items() if hasattr(network, "project")}


def inside(
    network: nn.Module, read: models.Reading, params: Params
) -> Callable[[Array, Array, Cond], tuple[Array, ...]]:
    """(x, t, cond) -> what a network makes of x_t on its way to the velocity that is read of it, from the first layer
    on."""

    def maps(x: Array, t: Array, cond: Cond) -> tuple[Array, ...]:
        shown: list[Array] = []
        read(networks.bind(network, params, shown))(x, t, t, cond)
        return tuple(shown)

    return maps


def last_layer(student: step_.Bind, last_kernel: Callable[[Params], tuple[str, ...]], params: Params) -> LastLayer:
    """The student as a function of its last kernel."""
    flat, path = traverse_util.flatten_dict(params), last_kernel(params)

    def with_kernel(kernel: Array) -> Velocity:
        return student(traverse_util.unflatten_dict({**flat, path: kernel}))

    return LastLayer(flat[path], with_kernel)
