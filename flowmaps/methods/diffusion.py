"""Diffusion models: denoising at all noise levels, in one of the field's weightings. With E[x0 | x_t] and E[x1 | x_t]
as the student has them, D = |E[x1 | x_t] - x1|^2, N = |E[x0 | x_t] - x0|^2 / source_std^2 and N / D the SNR:

    constant       D                                       min_snr     min(SNR, g) D        (arXiv:2303.09556)
    snr            SNR D = N: DDPM's L_simple              edm         SNR D + D / data_std^2 (arXiv:2206.00364)
    truncated_snr  max(SNR, 1) D       (arXiv:2202.00512)  likelihood  N d/dt log SNR, its drift's and its
    snr_plus_one   (SNR + 1) D         (arXiv:2202.00512)              diffusion's g^2 (arXiv:2101.09258)

What the network predicts is config.prediction's matter; all weightings have the same minimiser, the tangent identity's
v_{t,t} = b_t. DDPM itself is the path `discrete` with the law of times ("multiples", 1000). Cost: 3F a row.
"""

from typing import Literal

import jax.numpy as jnp
from jaxtyping import Float

from flowmaps import lookup, rows, samplers, times
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles

Row = Float[Array, " b"]


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    weighting: Literal["constant", "snr", "truncated_snr", "snr_plus_one", "min_snr", "edm", "likelihood"] = "snr",
    law: tuple = ("uniform",),
    snr_cap: float = 5.0,
    data_std: float = 0.5,
    label_dropout: float = 0.0,
) -> Method:
    """law: of the times, see times.on_path. snr_cap: g of min_snr. data_std: of edm.

    Raises UsageError for an unknown weighting or law. The likelihood's weight is infinite where alpha or beta is 0.
    """
    weightings = {
        "constant": lambda data, noise, t: data,
        "snr": lambda data, noise, t: noise,
        "truncated_snr": lambda data, noise, t: jnp.maximum(data, noise),
        "snr_plus_one": lambda data, noise, t: data + noise,
        "min_snr": lambda data, noise, t: jnp.minimum(noise, snr_cap * data),
        "edm": lambda data, noise, t: noise + data / data_std**2,
        "likelihood": lambda data, noise, t: 2 * interpolant.level_fall(t) * noise,
    }
    lookup.check_name("weighting", weighting, weightings)
    weigh = weightings[weighting]
    draw = times.on_path(interpolant, *law)

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        t = draw(rows.fold(keys, 1))
        x = interpolant.point(batch["x0"], batch["x1"], t)
        velocity = roles.student(x, t, t, cond, dropout=rows.fold(keys, 2))
        data, noise = _terms.denoising_errors(interpolant, batch, x, velocity, t)
        metrics = {"data": jnp.mean(data), "noise": jnp.mean(noise) * interpolant.source_std**2}
        return Loss(weigh(data, noise, t), metrics)

    return Method({"student": student_loss}, samplers.make("diagonal", interpolant=interpolant), diagonal_only=True)
