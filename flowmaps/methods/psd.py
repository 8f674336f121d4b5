"""Progressive self-distillation (PSD). Boffi, Albergo, Vanden-Eijnden 2025, arXiv:2505.18825, eq. 22.

    L = E |v_tt(x_t) - dx_t/dt|^2  +  E |v_st(x_s) - sg[h v_su(x_s) + (1 - h) v_ut(X_su(x_s))]|^2,  u = s + h (t - s)

h = 1/2: PSD-M; h uniform: PSD-U, the interval splitting of SplitMeanFlow. The residual is the semigroup's divided by
t - s. No jvp. Cost: 3F a diagonal row, 5F an off-diagonal one.
"""

from typing import Literal

import jax.numpy as jnp

from flowmaps import rows
from flowmaps.identities import semigroup
from flowmaps.interpolants import Interpolant
from flowmaps.methods._self_distillation import self_distillation
from flowmaps.types import Cond, Keys, Method, Roles


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    middle: Literal["midpoint", "uniform"] = "midpoint",
    diagonal_fraction: float = 0.75,
    weights: tuple[float, float] = (0.75, 0.25),
    through: Literal["velocity", "all"] = "velocity",
    learned_weight: bool = False,
    label_dropout: float = 0.0,
) -> Method:
    """middle: where the interval is cut. weights, learned_weight: as in lsd. through "all": nothing stopped."""

    def residual(roles: Roles, x, s, t, cond: Cond, keys: Keys):
        share = rows.uniform(keys) if middle == "uniform" else jnp.full_like(s, 0.5)
        legs = roles.student if through == "all" else roles.target
        dropout = rows.fold(keys, 0)
        return semigroup(roles.student, legs, x, s, t, share, cond, through=through, dropout=dropout)

    return self_distillation(
        residual,
        interpolant=interpolant,
        diagonal_fraction=diagonal_fraction,
        weights=weights,
        learned_weight=learned_weight,
        label_dropout=label_dropout,
    )
