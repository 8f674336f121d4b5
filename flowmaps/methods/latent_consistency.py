"""Latent consistency models (Luo et al. 2023, arXiv:2310.04378; the clock is turned): consistency distillation of a
guided teacher, whose scale w is drawn a row and read by the student. With the student's average X',

    L = E d( X_s1(x_s | w), sg X'_u1(x_u | w) ),   s on a chain of n times, u = s + skip / n or the end,

x_u by one step of the guided teacher from x_s. The paper skips 20 of 1,000 times, which learns faster than neighbours;
its own scale is w - 1, in [2, 14]. "Latent" are its data (data `latents`), and no part of the method. The paper's
boundary, X_11 = id, holds by the prediction: `edm`, or `consistency` on a path that ends with noise.
Cost: 4F a row, and of the teacher 1F (heun: 2F), twice that where it is guided.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Float

from flowmaps import identities, rows, samplers, times, weightings
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles

Row = Float[Array, " b"]


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    chain: int = 1000,
    skip: int = 20,
    leg: Literal["ddim", "heun"] = "ddim",
    guidance: tuple[float, float] = (1.0, 1.0),
    distance: _terms.Distance = "squared",
    huber: float = 0.001,
    target_decay: float = 0.95,
    label_dropout: float = 0.0,
) -> Method:
    """chain: equal intervals of the path's clock, at whose beginnings s is drawn. skip: how many of them a step takes.
    leg: the step, see solvers/steps.py. guidance: the least and the largest w, uniform between them, the paper's
    (3, 15); (1, 1): none, and no input of the network. distance, huber: see _terms.far. target_decay: of the average.

    Raises UsageError for a step longer than the chain, scales that do not rise from above 0, or a teacher that is not
    there (with the first batch).
    """
    if not 1 <= skip <= chain:
        raise UsageError(f"method.skip={skip} must be at least 1 and at most method.chain={chain}")
    learned = _terms.guidance_input(guidance, intervals=False)

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        cond = _terms.ask_guidance(cond, learned, rows.fold(keys, 3))
        index = jnp.floor(chain * rows.uniform(rows.fold(keys, 1)))
        s, u = (times.at_index(interpolant, i, chain) for i in (index, jnp.minimum(index + skip, chain)))
        x_s = interpolant.point(batch["x0"], batch["x1"], s)
        x_u = _terms.teacher_step(leg, roles, interpolant, x_s, s, u, cond)
        ends, dropout = jnp.full_like(s, interpolant.t_max), rows.fold(keys, 2)
        between = roles.student, roles.target, (x_s, x_u), s, u, ends, cond, dropout
        moved, aim = identities.consistent_states(*between)
        far = _terms.far(roles, moved, aim, distance, huber)
        return Loss(far, {"map": jnp.mean(weightings.squared(moved - aim))})

    return Method(
        {"student": student_loss},
        samplers.make("renoising", interpolant=interpolant),
        _terms.features_owner(distance == "perceptual"),
        target_decay=lambda step: target_decay,
        guidance=learned,
        teacher="velocity",
        diagonal=False,
        one_end=True,
    )
