"""From a config to the parts of a run: with models.py the one place, beside the modes, that reads a config."""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax import linen as nn
from jax.sharding import Mesh
from ml_collections import ConfigDict

from flowmaps import (
    checks,
    couplings,
    data,
    ema,
    frozen,
    models,
    networks,
    optimizers,
    role_networks,
    sharding,
    state,
    trained,
)
from flowmaps import (
    train_step as step_,
)
from flowmaps.couplings import Coupling
from flowmaps.errors import UsageError
from flowmaps.guidance import Autoguided, ClassifierFree, Conditioned
from flowmaps.interpolants import Interpolant
from flowmaps.optimizers import Optimizer
from flowmaps.state import TrainState
from flowmaps.types import Array, Method, Params, Roles, Velocity, stage_ends

WEAK = "weak_student"
"""The role of the run by which samples are guided."""
NO_TANGENT = ("forward-mode autodiff (jvp) to a custom_vjp", "Differentiation rule for 'custom_lin'")
"""What jax says of a function without a forward derivative that a program takes: where it is lowered, and where it is
traced for a gradient."""


class Experiment(NamedTuple):
    """What a config describes, made. Nothing here holds parameters."""

    config: ConfigDict
    method: Method
    interpolant: Interpolant
    coupling: Coupling
    teachers: dict[str, ConfigDict]
    """By role, "teacher" and "weak_teacher", the configs of the runs that config.teacher names."""
    readings: dict[str, models.Reading]
    """By role, of those that are velocities: what the network's outputs stand for."""
    networks: dict[str, nn.Module]
    """By role."""
    optimizers: dict[str, Optimizer]
    """By player."""
    dataset: data.Dataset
    pairs: data.Pairs | None
    """The stored pairs that the run trains on in place of the data."""
    mesh: Mesh

    @property
    def examples(self) -> data.Source:
        """What the run trains on."""
        return self.dataset.train if self.pairs is None else self.pairs

    @property
    def fingerprint(self) -> str:
        """Of what the run trains on."""
        pairs = "" if self.pairs is None else f" with pairs {self.pairs.fingerprint}"
        return self.dataset.fingerprint + pairs


def build(config: ConfigDict, *, training: bool = True) -> Experiment:
    """Makes the parts of a run; the roles beside the student only where it trains, so that it needs none afterwards.

    Raises UsageError for any value that does not fit, MissingError for missing data.
    """
    mesh = sharding.make_mesh(config.mesh.data, config.mesh.fsdp)
    sharding.check_batch(mesh, config.train.batch_size, config.train.accumulate)
    checks.ranges(config)
    interpolant = models.make_path(config)
    method = models.make_method(config, interpolant)
    if not training:
        method = student_alone(method)
    teachers = models.teacher_configs(config) if training else {}
    made = {"student": models.Model(config, method, interpolant)}
    made |= {role: models.teacher_model(made["student"], found) for role, found in teachers.items()}
    made |= {role: made[source] for role, source in method.init.items() if source in made}
    weak = models.weak_model(made["student"])
    if weak is not None and not training:
        made[WEAK] = weak
    readings = {role: models.reading(model, interpolant) for role, model in made.items()}
    dataset = load_data(config.data)
    checks.source(config, method, dataset)
    checks.features(config, method, dataset)
    if method.guidance is None:
        checks.guidance(config, dataset)
    else:
        checks.learned_guidance(config, method.guidance)
    checks.prediction(config, method)
    if training:
        checks.players(config, method)
        checks.teacher(config, method)
        checks.pairs(config, method)
        checks.averages(config, method)
    return Experiment(
        config=config,
        method=method,
        interpolant=interpolant,
        coupling=couplings.make(config.coupling.name, **models.options(config.coupling)),
        teachers=teachers,
        readings=readings,
        networks=role_networks.make(config, method, made, readings, dataset),
        optimizers={player: make_optimizer(config, method, player) for player in method.losses},
        dataset=dataset,
        pairs=load_pairs(config, dataset) if training and "pairs" in config.coupling else None,
        mesh=mesh,
    )


def student_alone(method: Method) -> Method:
    """The method without the other players, which nobody needs who generates."""
    return method._replace(losses={"student": method.losses["student"]}, owners={}, reads={}, init={})


def load_data(section: ConfigDict) -> data.Dataset:
    """The data set of a section, with that of its `source` to start from where it has one."""
    chosen = {name: value for name, value in models.options(section).items() if name != "source"}
    dataset = data.load(section.name, **chosen)
    return data.paired(dataset, load_data(section.source)) if "source" in section else dataset


def load_pairs(config: ConfigDict, dataset: data.Dataset) -> data.Pairs:
    """The pairs of config.coupling.pairs. Raises MissingError where they are not there, UsageError where they are of
    other data or another source, or their ways of another path."""
    if "source" in config.data:
        raise UsageError("coupling 'stored' brings its own source, noise: leave out data.source")
    pairs = data.pairs(config.coupling.pairs, dataset, real=config.coupling.real)
    names = ("data.name", "data.source", "coupling.scale", *(("interpolant",) if pairs.points > 1 else ()))
    trained.check_same(trained.restored(pairs.origin["config"]), config, names, "coupling.pairs")
    return pairs


def make_optimizer(config: ConfigDict, method: Method, player: str) -> Optimizer:
    """The player's optimizer: the config's, with what config.players says otherwise for this player."""
    own = config.players.get(player, {}).get("optimizer", {})
    period = method.periods.get(player, 1)
    starts = (0, *(end // period for end in stage_ends(method.stages)[:-1]))
    updates = max(config.train.steps // period, 1)
    return optimizers.make(**{**config.optimizer, **own}, updates=updates, starts=starts)


def decays(config: ConfigDict, method: Method) -> dict[str, tuple[float, ...]]:
    """Role -> the decays of its averages: of the student those of config.train, of other trained roles those of
    config.players."""
    others = [role for role, owner in method.owners.items() if owner in method.losses]
    return {"student": config.train.ema, **{role: config.players.get(role, {}).get("ema", ()) for role in others}}


def init(exp: Experiment) -> TrainState:
    """The state before the first step, born in its shardings and never whole on one device.

    Where config.init_from names a workdir, the student and its averages start from the average trained there; where
    config.teacher.workdir names one, its average is the frozen role "teacher". Other frozen roles have the weights that
    config.players names.
    """
    shardings = state_shardings(exp)
    start = jax.jit(partial(_create, exp), out_shardings=shardings)()
    params = dict(start.params)
    for role, config in exp.teachers.items():
        workdir, abstract = Path(exp.config.teacher[models.TEACHERS[role]]), abstract_state(exp).params[role]
        params[role] = trained.averaged_student(workdir, config, abstract)
    for role in frozen.roles(exp.method):
        source, field = exp.config.players[role].get("weights"), f"players.{role}.weights"
        params[role] = frozen.load_weights(source, abstract_state(exp).params[role], field)
    if trained.named(exp.config.init_from) is not None:
        params["student"] = start_from(exp, Path(exp.config.init_from), params["student"])
    params |= {role: ema.copy(params[source]) for role, source in exp.method.init.items()}
    return start.replace(
        params=params, **state.averages(params, method=exp.method, decays=decays(exp.config, exp.method))
    )


def abstract_state(exp: Experiment) -> TrainState:
    """The state's shapes and types with their shardings, as a checkpoint is restored into."""
    abstract = jax.eval_shape(partial(_create, exp))

    def place(array: jax.ShapeDtypeStruct, where: jax.sharding.Sharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=where)

    return jax.tree.map(place, abstract, sharding.state(exp.mesh, abstract))


def state_shardings(exp: Experiment) -> TrainState:
    """A NamedSharding for each array of the state."""
    return jax.tree.map(lambda array: array.sharding, abstract_state(exp))


def train_step(exp: Experiment) -> step_.Step:
    """The compiled step (state, batch) -> (state, metrics), which consumes the state that it is given.

    It is traced and lowered here, once, so that a batch that the method cannot use, or a network without the
    derivatives that it takes, raises its UsageError before the run.
    """
    step = step_.make(
        exp.method,
        binds=binds(exp),
        guide=partial(models.guided_teacher, exp.config, exp.method),
        views=views(exp),
        projections=role_networks.projections(exp.networks),
        coupling=exp.coupling,
        optimizers=exp.optimizers,
        mesh=exp.mesh,
        seed=exp.config.seed,
        accumulate=exp.config.train.accumulate,
    )
    shardings = state_shardings(exp)
    jitted = jax.jit(
        step,
        in_shardings=(shardings, sharding.rows(exp.mesh)),
        out_shardings=(shardings, sharding.replicated(exp.mesh)),
        donate_argnums=0,
    )
    look_ahead(exp, jitted)
    return jitted


def look_ahead(exp: Experiment, jitted: jax.stages.Wrapped) -> None:
    """Traces and lowers the step, which its first call need not do again. Raises UsageError as `train_step` does."""
    try:
        jitted.trace(abstract_state(exp), abstract_batch(exp)).lower()
    except (NotImplementedError, TypeError) as error:
        if not any(words in str(error) for words in NO_TANGENT):
            raise
        raise UsageError(
            f"method {exp.config.method.name!r} with these options takes forward derivatives (jax.jvp), and a part of "
            f"network {exp.config.network.name!r}, or of another one here, has a rule for the backward pass alone "
            "(jax.custom_vjp), as fused attention has: compute that part as flowmaps/networks/attention.py does"
        ) from error


def global_batch(exp: Experiment, local: Mapping[str, np.ndarray]) -> dict[str, Array]:
    """The global batch, cut over the devices, from this process's block of it. Labels go where there are classes."""
    return sharding.global_batch(exp.mesh, _used(exp, local))


def abstract_batch(exp: Experiment) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes and types of a global batch."""
    rows, where = exp.config.train.batch_size, sharding.rows(exp.mesh)
    one = _used(exp, exp.examples.batch(np.zeros(1, np.int64)))
    return {name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype, sharding=where) for name, x in one.items()}


def binds(exp: Experiment) -> dict[str, step_.Bind]:
    """Role -> (parameters -> the role's callable)."""
    return {
        role: partial(role_networks.bind, network, exp.readings.get(role)) for role, network in exp.networks.items()
    }


def views(exp: Experiment) -> dict[str, step_.View]:
    """The extra roles that are made of other roles' parameters."""
    return role_networks.views(exp.config.network.name, exp.networks, exp.readings)


def student(exp: Experiment, params: Params) -> Velocity:
    """The student with the given parameters, see `with_weak`, without dropout, guided as config.guidance says: by a
    weaker run, by its own input where it has one, otherwise classifier-free."""
    bound, scale, interval = binds(exp), exp.config.guidance.scale, tuple(exp.config.guidance.interval)
    velocity = bound["student"](params["student"] if WEAK in exp.networks else params)
    if scale == 1:
        return velocity
    if WEAK in exp.networks:
        return Autoguided(velocity, bound[WEAK](params[WEAK]), scale, interval)
    return (ClassifierFree if exp.method.guidance is None else Conditioned)(velocity, scale, interval)


def with_weak(exp: Experiment, params: Params) -> Params:
    """The parameters that samples are made with: the student's, and where config.guidance.weak names a run beside them
    the average of its student."""
    if WEAK not in exp.networks:
        return params
    workdir, abstract = Path(exp.config.guidance.weak), abstract_state(exp).params[WEAK]
    config = trained.read(workdir, "guidance.weak")
    return {"student": params, WEAK: trained.averaged_student(workdir, config, abstract)}


def roles_for_sampling(exp: Experiment, params: Params) -> Roles:
    """The roles that a sampler may use, for the student's parameters `params`."""
    velocity = student(exp, params)
    return Roles(student=velocity, target=velocity)


def start_from(exp: Experiment, workdir: Path, fresh: Params) -> Params:
    """The student trained in `workdir`. One that learned the diagonal alone starts as v_{s,t} = v_{s,s}, and where this
    one reads guidance one that does not starts as itself at every scale; `fresh` weights make it whole.

    Raises MissingError where there is no such run, UsageError where its network, but for dropout and the way that it is
    computed, its prediction or path is another.
    """
    config = trained.read(workdir, "init_from")
    same = ("network", "prediction", "interpolant", "coupling.scale")
    but = ("network.attention_form", "network.dropout", "network.remat")
    if isinstance(config.network.get("attention"), str):  # of a transformer: of a U-Net it says where there is any
        but += ("network.attention",)
    trained.check_same(config, exp.config, same, "init_from", but=but)
    method = models.make_method(config, exp.interpolant)
    if method.heads != exp.method.heads:
        raise UsageError(
            f"init_from={str(workdir)!r} is of another kind: its network has {method.heads} outputs, and this method "
            f"reads {exp.method.heads}"
        )
    if method.guidance is not None and exp.method.guidance is None:
        raise UsageError(
            f"init_from={str(workdir)!r} is of another kind: its network reads guidance, this one does not"
        )
    network = role_networks.velocity(models.Model(config, method, exp.interpolant), exp.dataset)
    donor = abstract_state(exp._replace(networks={**exp.networks, "student": network})).params["student"]
    params, name = trained.averaged_student(workdir, config, donor), config.network.name
    if method.diagonal_only:
        params = networks.change(name, "without_end_time")(params)
    if method.guidance is None and exp.method.guidance is not None:
        params = networks.change(name, "with_guidance_input")(params, fresh)
    return jax.device_put(params, state_shardings(exp).params["student"])


def _create(exp: Experiment) -> TrainState:
    key = jax.random.fold_in(jax.random.key(exp.config.seed), step_.STREAMS["init"])
    keys = {role: jax.random.fold_in(key, number) for number, role in enumerate(exp.networks)}
    return state.create(
        {role: networks.init(module, keys[role]) for role, module in exp.networks.items()},
        method=exp.method,
        optimizers=exp.optimizers,
        decays=decays(exp.config, exp.method),
    )


def _used(exp: Experiment, batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: x for name, x in batch.items() if exp.dataset.num_classes or not name.endswith("label")}
