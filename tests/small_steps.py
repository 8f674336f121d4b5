"""Steps of small methods on few rows, for tests of the step itself."""

import types
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from flowmaps import couplings, interpolants, methods, networks, optimizers, rows, sharding, state, train_step
from flowmaps.types import Loss

STEPS = 3


def linear(params):
    """v_{s,t}(x) = x A + b."""

    def velocity(x, s, t, cond, *, dropout=None):
        return x @ params["A"] + params["b"][None]

    return velocity


def linear_params(seed=0):
    a, b = np.random.default_rng(seed).normal(size=(2, 2, 2))
    return {"A": jnp.asarray(a), "b": jnp.asarray(b[0])}


def regression(roles, batch, keys, step):
    """A loss of two terms, of 3/4 and 1/4 of the rows, that draws a number for each row."""
    (near, near_keys), (far, _) = rows.split((batch, keys), (0.75, 0.25))
    t = rows.uniform(near_keys)
    x = rows.expand(t, near["x1"]) * near["x1"] + near["x0"]
    first = rows.flat_sum((roles.student(x, t, t, {}) - near["x1"]) ** 2)
    zeros = jnp.zeros(far["x1"].shape[0], far["x1"].dtype)
    second = rows.flat_sum(roles.student(far["x0"], zeros, zeros, {}) ** 2)
    both = rows.join([first, second], (0.75, 0.25))
    return Loss(both, {"first": first.mean()})


def experiment(
    method,
    params,
    *,
    binds=None,
    mesh=None,
    batch=32,
    accumulate=1,
    decays=(),
    other_decays=(),
    projections=types.MappingProxyType({}),
    **options,
):
    """The jitted step, its first state and a batch. decays: of the student's averages, and those of others by role."""
    mesh = mesh or sharding.make_mesh(1, 1)
    binds = binds or dict.fromkeys(params, linear)
    options = {"name": "sgd", "learning_rate": 0.1, "updates": 100, **options}
    made = {player: optimizers.make(**options) for player in method.losses}
    create = partial(state.create, method=method, optimizers=made, decays={"student": decays, **dict(other_decays)})
    shardings = sharding.state(mesh, jax.eval_shape(create, params))
    step = train_step.make(
        method,
        binds=binds,
        coupling=couplings.make("independent"),
        optimizers=made,
        mesh=mesh,
        seed=7,
        accumulate=accumulate,
        projections=projections,
    )
    where = (shardings, sharding.rows(mesh))
    out = (shardings, sharding.replicated(mesh))
    jitted = jax.jit(step, in_shardings=where, out_shardings=out, donate_argnums=0)
    data = {"x1": np.random.default_rng(1).normal(size=(batch, 2)).astype(jnp.result_type(float))}
    return jitted, jax.jit(create, out_shardings=shardings)(params), sharding.global_batch(mesh, data)


def run(step, current, batch, steps=STEPS):
    """The state after `steps` steps, and the metrics of each."""
    history = []
    for _ in range(steps):
        current, metrics = step(current, batch)
        history.append(jax.device_get(metrics))
    return jax.device_get(current), history


def self_distillation():
    """LSD, a real method with a jvp, on a network of which FSDP cuts a layer."""
    method = methods.load("lsd").make(interpolant=interpolants.linear(), total_steps=100)
    network = networks.make("mlp", shape=(2,), num_classes=0, width=64, depth=3)
    params = {"student": networks.init(network, jax.random.key(0))}
    return method, params, {"student": partial(networks.bind, network)}


def everything(roles, batch, keys, step):
    """A loss that reads every role."""
    s = jnp.zeros(batch["x1"].shape[0])
    callables = (roles.student, roles.target, roles.teacher, *roles.extras.values())
    return Loss(sum(rows.flat_sum(f(batch["x1"], s, s, {}) ** 2) for f in callables), {})


def number(params):
    """A role that is one number."""
    return lambda: params["p"]


def pull(mine, other, factor=1.0):
    """The loss (mine - factor * other)^2 / 2 of one number against another."""

    def loss(roles, batch, keys, step):
        values = {"student": roles.student, "target": roles.target, **roles.extras}
        gap = values[mine]() - factor * values[other]()
        return Loss(jnp.broadcast_to(gap**2 / 2, batch["x1"].shape[:1]), {"gap": gap})

    return loss


def numbers(**values):
    return {role: {"p": jnp.asarray(value)} for role, value in values.items()}
