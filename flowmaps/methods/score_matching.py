"""Score matching at the noise levels of a path, with s(x) = grad log p_t(x) as the student has it, its Jacobian J and
the noise's deviation sigma = beta source_std (Hyvarinen 2005, JMLR 6; Song et al. 2019, arXiv:1905.07088):

    denoising   sigma^2 |s(x_t) + x0 / (beta source_std^2)|^2          which is diffusion's snr weighting
    implicit    sigma^2 (2 tr J + |s|^2)                               the same but for a constant, without seeing x0
    sliced      sigma^2 (2 v . J v + |s|^2),  v of random signs        the same in the mean over v

NCSN (arXiv:1907.05600) is the first on the path `geometric` with the law of times ("ladder", 10). Cost: 3F a row;
implicit about 6F for each dimension of x, sliced about 6F.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Float

from flowmaps import rows, samplers, times
from flowmaps.identities import directional_derivative, divergence
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.rows import flat_sum
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles
from flowmaps.weightings import squared

Points = Float[Array, "b *d"]


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    objective: Literal["denoising", "implicit", "sliced"] = "denoising",
    law: tuple = ("uniform",),
    label_dropout: float = 0.0,
) -> Method:
    """law: of the times, see times.on_path."""
    draw = times.on_path(interpolant, *law)

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        t = draw(rows.fold(keys, 1))
        x = interpolant.point(batch["x0"], batch["x1"], t)
        dropout = rows.fold(keys, 2)

        def scaled_score(x: Points) -> Points:  # sigma s
            velocity = roles.student(x, t, t, cond, dropout=dropout)
            return -interpolant.ends_from_velocity(x, velocity, t).noise / interpolant.source_std

        sigma = interpolant.beta.value(t) * interpolant.source_std
        if objective == "denoising":
            value = squared(scaled_score(x) + batch["x0"] / interpolant.source_std)
        elif objective == "implicit":
            value = squared(scaled_score(x)) + 2 * sigma * divergence(scaled_score, x)
        else:
            signs = jnp.sign(rows.normal(rows.fold(keys, 3), x.shape[1:])).astype(x.dtype)
            score, change = directional_derivative(scaled_score, (x,), (signs,))
            value = squared(score) + 2 * sigma * flat_sum(signs * change)
        return Loss(value, {objective: jnp.mean(value)})

    return Method(
        {"student": student_loss},
        samplers.make("diagonal", interpolant=interpolant),
        diagonal_only=True,
        gaussian_source=objective != "denoising",  # the density's own score, which is no other source's velocity
    )
