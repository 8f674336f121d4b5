"""What a step of each method costs, in forward passes of the network: counted flops of the compiled gradient."""

import jax
import jax.numpy as jnp
import pytest
from laws import LINEAR, Features

from flowmaps import methods, networks, rows
from flowmaps.types import LastLayer, Roles

BATCH = 256
FLOORS = {
    ("flow_matching",): 3,
    ("diffusion",): 3,
    ("score_matching",): 3,
    ("score_matching", ("objective", "sliced")): 6,
    ("lsd",): 0.75 * 3 + 0.25 * 7,  # off the diagonal: jvp 2, teacher 1, backward through both halves of the jvp 4
    ("lsd", ("through", "velocity")): 0.75 * 3 + 0.25 * 5,
    ("esd",): 0.75 * 3 + 0.25 * 8,  # value and two tangents 3, teacher 1, backward through value and one tangent 4
    ("psd",): 0.75 * 3 + 0.25 * 5,
    ("shortcut",): 0.75 * 3 + 0.25 * 5,
    ("mean_flow",): 0.75 * 3 + 0.25 * 4,
    ("mean_flow", ("tangent", "model")): 0.75 * 3 + 0.25 * 5,
    ("mean_flow", ("omega", 2.0), ("label_dropout", 0.1)): 0.75 * 4 + 0.25 * 5,
    ("mean_flow", ("kappa", 0.5), ("label_dropout", 0.1)): 0.75 * 4 + 0.25 * 6,
    ("consistency",): 4,
    ("continuous_consistency", ("warmup_steps", 1), ("learned_weight", False)): 4,
    ("alpha_flow", ("schedule", "exponential"), ("between", (0.1, 0.1))): 0.5 * 3 + 0.5 * 4,
    ("facm",): 7,
    ("align_your_flow", ("warmup_steps", 1)): 4,
    ("tvm",): 10,  # flow 3, and the Lagrangian's 7
    ("imm",): 4,
    ("imle",): 16 + 3,
    ("drifting", ("group", 16)): 3,  # beside all pairs of a group
    ("progressive_distillation",): 3 + 2,
    ("reflow",): 3,
    ("knowledge_distillation",): 3,
    ("consistency_mid_training", ("points", 1)): 3,
    ("truncated_consistency", ("boundary", 0.1)): 3 + 2,
    # With a teacher as large, through whose input the gradient of the first flows:
    ("flow_map_distillation",): 6 + 2,
    ("flow_map_distillation", ("objective", "eulerian")): 6 + 1,
    ("flow_map_distillation", ("objective", "direct")): 11,  # the way back 1 and 2, the way forth 2 and 6
    ("flow_map_distillation", ("objective", "progressive")): 3 + 2,
    ("latent_consistency",): 4 + 1,
    ("latent_consistency", ("leg", "heun")): 4 + 2,
    ("ctm",): 10,  # map 3, aim 1, both to the end 2 and back to the input 1, denoising 3
    ("ctm", ("adaptive", True)): 10,  # its passes are the loss's own, but for the last layer
    ("ctm", ("leg", "heun"), ("most_steps", 5)): 10 + 2,  # of the teacher's steps, a loop, one is counted
    # Beside a fake as large:
    ("score_distillation",): 3 + 2,
    ("score_distillation", ("objective", "sds")): 3 + 1,
    ("score_distillation", ("objective", "sid")): 3 + 2 * 2,  # through both, to their inputs
    ("dmd",): 2 * 3 + 2,
    ("dmd2", ("adversarial", 0.0), ("critic_weight", 0.0)): 3 + 2,
    ("adversarial_distillation",): 3 + 1,
    ("improved_mean_flow",): 0.5 * 3 + 0.5 * 5,
    ("improved_mean_flow", ("guidance", (1.0, 8.0)), ("label_dropout", 0.1)): 0.5 * 4 + 0.5 * 6,
    # Guided legs at the smallest step alone:
    ("shortcut", ("guidance_scale", 2.0), ("label_dropout", 0.1)): 0.75 * 3 + 0.25 * 5 + 2 / 32,
}
"""A perceptron's tangent costs one forward pass; attention adds a tenth."""


def flops(function, *arguments) -> float:
    return jax.jit(function).lower(*arguments).compile().cost_analysis()["flops"]


@pytest.mark.parametrize("case", FLOORS, ids=str)
def test_a_step_costs_its_floor(case):
    name, *options = case
    method = methods.load(name).make(interpolant=LINEAR, total_steps=10, **dict(options))
    wanted = {"outputs": method.heads, "guided": method.guidance is not None}
    module = networks.make("mlp", shape=(64,), num_classes=2, width=512, depth=4, **wanted)
    params = networks.init(module, jax.random.key(0))
    keys = rows.keys(jax.random.key(1), 0, BATCH)
    x = rows.normal(keys, (64,))
    label = jnp.zeros(BATCH, jnp.int32)

    def last_layer(params):
        layer, name = networks.load("mlp").last_kernel(params)

        def student(kernel):
            return networks.bind(module, {**params, layer: {**params[layer], name: kernel}})

        return LastLayer(params[layer][name], student)

    def gradient(params, teacher, x0, x1):
        def loss(params):
            still = jax.lax.stop_gradient(params)
            batch = {"x0": x0, "x1": x1, "label": label}
            student, target, frozen = (networks.bind(module, p) for p in (params, still, teacher))
            free = {"critic": lambda maps, t, cond: maps[0].sum(axis=1, keepdims=True), "features": Features()}
            roles = Roles(student, target, frozen, {"last_layer": last_layer(still), "fake": target, **free})
            return method.losses["student"](roles, batch, keys, jnp.zeros((), jnp.int32)).per_example.mean()

        return jax.grad(loss)(params)

    def forward(params, x):
        return networks.bind(module, params)(x, x[:, 0], x[:, 1], {"label": label})

    # A gradient with respect to the first layer's input is never needed, which the floor counts: hence the slack below.
    ratio = flops(gradient, params, params, x, x) / flops(forward, params, x)
    assert FLOORS[case] * 0.93 < ratio < FLOORS[case] * 1.03
