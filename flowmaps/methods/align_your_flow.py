"""Align Your Flow (Sabour, Fidler, Kreis 2025, arXiv:2506.14603), its Eulerian map distillation (EMD) with the path's
own velocity in the teacher's place. For every s <= t, with v = v_st(x_s),

    g = dx_s/ds - v + r (t - s) dv/ds,    L = E |v - sg v - g / (|g| + c)|^2,

dv/ds along the path: MeanFlow's gradient with normalised tangents. r rises from 0, where the loss is flow matching at
every t, to 0.99 and no further, which keeps the map near to the straight one. Cost: 4.1F a row.
"""

import jax.numpy as jnp
from jax.lax import stop_gradient

from flowmaps import rows, samplers, times
from flowmaps.errors import UsageError
from flowmaps.identities import eulerian
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles
from flowmaps.weightings import normalized, squared


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    law: tuple = ("uniform",),
    warmup_steps: int = 10_000,
    most: float = 0.99,
    constant: float = 0.1,
    label_dropout: float = 0.0,
) -> Method:
    """law: of the two times that are sorted into s <= t, see times.on_path. warmup_steps: until r = most; 0: none.
    constant: c of the normalization; 0: none.

    Raises UsageError for a warm-up longer than training, or an r outside of [0, 1].
    """
    if warmup_steps >= total_steps:
        raise UsageError(f"method.warmup_steps={warmup_steps} must be fewer than train.steps={total_steps}")
    if not 0 <= most <= 1:
        raise UsageError(f"method.most={most} must lie in [0, 1]: 1 is the Eulerian identity itself")
    pair = times.sorted_pair(times.on_path(interpolant, *law))

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(_terms.condition(batch), rows.fold(keys, 0), label_dropout)
        s, t = pair(rows.fold(keys, 1))
        x, velocity = _terms.path_point(interpolant, batch, s)
        share = most * (jnp.minimum(1.0, step / warmup_steps) if warmup_steps else 1.0)
        map_ = eulerian(roles.student, x, s, t, velocity, cond, share=share, dropout=rows.fold(keys, 2))
        tangent = normalized(stop_gradient(map_), constant)
        # map_ has the gradient of -v
        return Loss(squared(stop_gradient(map_) - map_ - tangent), {"map": jnp.mean(squared(map_))})

    return Method({"student": student_loss}, samplers.composed)
