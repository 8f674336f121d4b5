"""Eulerian self-distillation (ESD). Boffi, Albergo, Vanden-Eijnden 2025, arXiv:2505.18825.

    L = E |v_tt(x_t) - dx_t/dt|^2  +  E |d/ds X_st(x_s) + sg(grad X_st(x_s) v_ss(x_s))|^2

The gradient flows through d/ds X alone; both derivatives come from one linearisation. Unstable at large learning rates
(the paper found no stable setting on images). Cost: 3F a diagonal row, about 8.4F an off-diagonal one.
"""

from typing import Literal

from flowmaps.identities import eulerian
from flowmaps.interpolants import Interpolant
from flowmaps.methods._self_distillation import self_distillation
from flowmaps.types import Cond, Keys, Method, Roles


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    diagonal_fraction: float = 0.75,
    weights: tuple[float, float] = (0.75, 0.25),
    through: Literal["slope", "map", "all", "velocity"] = "slope",
    learned_weight: bool = False,
    label_dropout: float = 0.0,
) -> Method:
    """weights: as in lsd. through: see identities.eulerian; "slope" is the paper's ("full" in its code)."""

    def residual(roles: Roles, x, s, t, cond: Cond, keys: Keys):
        teacher = roles.student if through == "all" else roles.target
        velocity = teacher(x, s, s, cond, dropout=keys)
        return eulerian(roles.student, x, s, t, velocity, cond, through=through, dropout=keys)

    return self_distillation(
        residual,
        interpolant=interpolant,
        diagonal_fraction=diagonal_fraction,
        weights=weights,
        learned_weight=learned_weight,
        label_dropout=label_dropout,
    )
