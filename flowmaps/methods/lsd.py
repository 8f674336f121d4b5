"""Lagrangian self-distillation (LSD). Boffi, Albergo, Vanden-Eijnden 2025, arXiv:2505.18825.

    L = E |v_tt(x_t) - dx_t/dt|^2  +  E |d/dt X_st(x_s) - sg v_tt(sg X_st(x_s))|^2

The derivative is one jvp in t alone, and the gradient flows through it. The teacher is the student's own diagonal with
its current weights (an average brought the authors no gain). Cost: 3F a diagonal row, 7.3F an off-diagonal one.
"""

from typing import Literal

from flowmaps.identities import lagrangian
from flowmaps.interpolants import Interpolant
from flowmaps.methods._self_distillation import self_distillation
from flowmaps.types import Cond, Keys, Method, Roles


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    diagonal_fraction: float = 0.75,
    weights: tuple[float, float] = (0.75, 0.25),
    through: Literal["map", "velocity", "all"] = "map",
    learned_weight: bool = False,
    label_dropout: float = 0.0,
) -> Method:
    """weights of the two terms' means: (1, 1) in the paper's algorithm, (0.75, 0.25) in its released code. through: see
    identities.lagrangian; "map" is the paper's. learned_weight: exp(-w_st) |r|^2 + w_st (paper eq. 19)."""

    def residual(roles: Roles, x, s, t, cond: Cond, keys: Keys):
        teacher = roles.student if through == "all" else roles.target

        def field(x, t):
            return teacher(x, t, t, cond, dropout=keys)

        return lagrangian(roles.student, x, s, t, field, cond, through=through, dropout=keys)

    return self_distillation(
        residual,
        interpolant=interpolant,
        diagonal_fraction=diagonal_fraction,
        weights=weights,
        learned_weight=learned_weight,
        label_dropout=label_dropout,
    )
