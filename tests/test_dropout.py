"""Dropout in training: in every term of every method, all calls on a row share the row's mask."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import Features

from flowmaps import interpolants, methods, rows
from flowmaps.types import Roles

BATCH = 64
OPTIONS = {
    "mean_flow": [{}, {"tangent": "model"}, {"omega": 2.0, "kappa": 0.5, "label_dropout": 1e-12}],
    "continuous_consistency": [{"warmup_steps": 2, "learned_weight": False}],
    "align_your_flow": [{"warmup_steps": 2}],
    "alpha_flow": [{"schedule": "exponential", "between": (0.3, 0.1)}],
    "improved_mean_flow": [{}, {"guidance": (1.0, 8.0), "label_dropout": 1e-12}],
    "tvm": [{}, {"guidance": (1.0, 2.0), "label_dropout": 1e-12}],
    "consistency": [{}, {"schedule": "ratio"}],
    "truncated_consistency": [{"boundary": 0.5}],
    "psd": [{}, {"middle": "uniform"}],
    "consistency_mid_training": [{"points": 1}],
    "shortcut": [{}, {"guidance_scale": 1.5, "label_dropout": 1e-12}],
    "score_distillation": [{}, {"objective": "sid"}],
    "dmd2": [{"steps": 2}],
}
OF_OTHERS = (
    "drifting",
    "knowledge_distillation",
    "consistency_mid_training",
    "flow_map_distillation",
    "progressive_distillation",
    "score_distillation",
    "dmd",
    "adversarial_distillation",
)
"""Methods whose targets are data or another player's."""
DERIVATIVES_ALONE = ("mean_flow", "continuous_consistency", "facm", "align_your_flow")
"""Methods whose target is the student's own derivative, taken in the student's call."""
OWN_STATES = ("dmd2",)
"""Methods whose student learns on states of its own sampling, which has no dropout."""
CASES = [(name, options) for name in methods.names() for options in OPTIONS.get(name, [{}])]


def frozen(x, s, t, cond, *, dropout=None):
    """A teacher, which has no dropout."""
    assert dropout is None
    return x * (t - s)[:, None]


def flat(maps, t, cond):
    """A critic, which has no dropout either."""
    return jnp.zeros((BATCH, len(maps)))


def spy(seen):
    """A velocity that notes the dropout keys of its calls."""

    def velocity(x, s, t, cond, *, dropout=None):
        seen.append(np.asarray(jax.random.key_data(dropout)))
        return x * (t - s)[:, None]

    velocity.heads = lambda *inputs, **keywords: (velocity(*inputs, **keywords),) * 2
    return velocity


@pytest.mark.parametrize(("name", "options"), CASES)
def test_student_target_and_derivative_share_the_mask_of_a_row(name, options):
    """The target's rows have the keys of the student's; a guided call has them twice. Every row has one mask."""
    students, targets = [], []
    method = methods.load(name).make(interpolant=interpolants.linear(), total_steps=10, **options)
    batch = {"x0": jnp.zeros((BATCH, 2)), "x1": jnp.ones((BATCH, 2)), "label": jnp.zeros(BATCH, jnp.int32)}
    keys = rows.keys(jax.random.key(0), 0, BATCH)
    extras = {"fake": frozen, "critic": flat, "features": Features(), "inside_fake": lambda x, t, cond: (x,)}
    roles = Roles(spy(students), frozen if name in OWN_STATES else spy(targets), frozen, extras)
    with jax.disable_jit(name == "imle"):  # whose loop over draws would hide the keys
        method.losses["student"](roles, batch, keys, jnp.zeros((), jnp.int32))
    known = [np.repeat(k, times, axis=0) for k in students for times in (1, 2)]
    assert all(any(np.array_equal(keys, k) for k in known) for keys in targets)
    everywhere = np.concatenate(students)
    assert len(everywhere) >= len(np.unique(everywhere, axis=0)) == BATCH
    assert (len(targets) == 0) == (
        method.diagonal_only
        or name in OF_OTHERS + OWN_STATES
        or (name in DERIVATIVES_ALONE and not {"omega", "tangent"} & set(options))
    )
