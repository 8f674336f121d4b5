"""Distribution matching distillation (DMD, Yin et al. 2024, arXiv:2311.18828) of a generator G of one step. With D the
data that the teacher predicts of x_t, and D' what the player "fake" does, a denoiser of G's own samples,

    L = KL, whose gradient in x = G(x_0) is (D' - D) / |x - D|_1,   +  regression weight * d(G(z), y)

on stored pairs of a noise z and the sample y that the teacher's flow makes of it; the fake learns by EDM's denoising
loss on what G makes. Without the regression the modes that G leaves out pull no more; DMD2 has other means.
Cost a row: fake 4F; student 6F, and 2F of the others.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Float

from flowmaps import rows, samplers, times, weightings
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _generator, _terms
from flowmaps.rows import flat_mean
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles
from flowmaps.weightings import squared

Points = Float[Array, "b *d"]


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    regression: float = 0.25,
    distance: Literal["squared", "perceptual"] = "squared",
    weighting: _generator.Weighting = "error",
    between: tuple[float, float] = (0.02, 0.98),
    fake_law: tuple = ("uniform",),
    data_std: float = 0.5,
    every: int = 1,
) -> Method:
    """regression: its weight beside a mean over the row's numbers. distance: of the regression, of means too, or
    weightings.perceptual; LPIPS is the paper's. weighting: of the gap, see _generator.weight; "error" is the paper's.
    between: shares of the path's clock from which the student's times are drawn, uniformly. fake_law, data_std: of the
    fake's times, see times.on_path, and of the weights. every: steps between the student's updates.

    Raises UsageError for a regression of weight 0, which DMD2 does without, or a teacher that is not there (with the
    first batch).
    """
    if regression <= 0:
        raise UsageError(f"method.regression={regression} must be above 0; method 'dmd2' does without pairs")
    _generator.check_weighting(weighting, interpolant, between)
    law = times.share_of(interpolant, *between)
    law_of_fake = times.on_path(interpolant, *fake_law)

    def made_of_noise(roles: Roles, batch: Batch, keys: Keys, dropout: Keys | None = None) -> Points:
        """Samples of new noise, unlike that of the pairs."""
        noise = _generator.source(interpolant, batch["x0"], keys)
        return _generator.generated(roles.student, interpolant, noise, rows.condition(batch), dropout)

    def far(roles: Roles, one: Points, other: Points) -> Float[Array, " b"]:
        if distance == "perceptual":
            return weightings.perceptual(_terms.features(roles), one, other)
        return flat_mean((one - other) ** 2)

    def fake_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        made, cond = made_of_noise(roles, batch, rows.fold(keys, 0)), rows.condition(batch)
        return _generator.denoising(roles, interpolant, made, law_of_fake, data_std, rows.fold(keys, 1), cond)

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond, dropout = rows.condition(batch), rows.fold(keys, 3)
        x = made_of_noise(roles, batch, rows.fold(keys, 2), dropout)
        t = law(rows.fold(keys, 0))
        gradient, gap = _generator.matching_gradient(
            roles, interpolant, x, t, rows.fold(keys, 1), cond, weighting=weighting, data_std=data_std
        )
        paired = _generator.generated(roles.student, interpolant, batch["x0"], cond, dropout)
        metrics = {"gap": jnp.mean(squared(gap)), "regression": jnp.mean(squared(paired - batch["x1"]))}
        return Loss(_generator.with_gradient(x, gradient) + regression * far(roles, paired, batch["x1"]), metrics)

    return Method(
        {"fake": fake_loss, "student": student_loss},
        samplers.one_step,
        owners={"fake": "fake", **_terms.features_owner(distance == "perceptual")},
        periods={"student": every},
        init={"fake": "teacher"},
        teacher="velocity",
        diagonal=False,
        pairs=True,
        one_end=True,
    )
