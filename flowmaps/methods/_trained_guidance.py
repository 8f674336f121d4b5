"""Guidance that MeanFlow trains in (arXiv:2505.13447, eq. 19): the velocity that a loss follows becomes

    g = omega dx_s/ds + (1 - omega - kappa) v_ss(x_s | no label) + kappa v_ss(x_s | label),

at whose fixed point v_ss has the guidance scale omega / (1 - kappa), for one network evaluation more a row, and a
second one where kappa asks for the model's own velocity and the loss has not computed it.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from flowmaps.errors import UsageError
from flowmaps.guidance import under_both, without_labels
from flowmaps.rows import expand
from flowmaps.types import NULL_LABEL, Array, Cond, Keys, Roles

Row = Float[Array, " b"]
Points = Float[Array, "b *d"]


class TrainedGuidance(NamedTuple):
    """omega and kappa of the rows that have a label, at times s in `interval`."""

    omega: float
    kappa: float
    interval: tuple[float, float]

    @property
    def acts(self) -> bool:
        """Whether there is any."""
        return self.omega != 1 or self.kappa != 0

    def velocity(
        self, roles: Roles, x: Points, s: Row, velocity: Points, own: Points | None, cond: Cond, dropout: Keys
    ) -> Points:
        """g for the path's `velocity`, which is left as it is where there is no guidance, and the model's `own`, where
        that is known already; otherwise both of the model's are one call."""
        if not self.acts:
            return velocity
        still = without_labels(cond)
        if own is None and self.kappa:
            own, unlabelled = under_both(roles.target, x, s, s, cond, still, dropout=dropout)
        else:
            unlabelled = roles.target(x, s, s, still, dropout=dropout)
        acts = (self.interval[0] <= s) & (s <= self.interval[1]) & (cond["label"] != NULL_LABEL)
        w, k = (expand(jnp.where(acts, on, off), x) for on, off in ((self.omega, 1.0), (self.kappa, 0.0)))
        g = w * velocity + (1 - w - k) * unlabelled
        return g + k * own if self.kappa else g


def make(omega: float, kappa: float, interval: tuple[float, float], label_dropout: float) -> TrainedGuidance:
    """Guidance from plain values. Raises UsageError where it needs unlabelled rows, and no label is dropped."""
    guidance = TrainedGuidance(omega, kappa, tuple(interval))
    if guidance.acts and omega + kappa != 1 and label_dropout == 0:
        raise UsageError(f"method.omega={omega}, kappa={kappa} need method.label_dropout above 0, for example 0.1")
    return guidance
