"""Score distillation of a generator G of one step. With x = G(x_0), x_t noised anew, D the data that the teacher
predicts of x_t and D' what the player "fake" does, a denoiser of G's own samples, G has the gradient

    sds   w (x - D)     DreamFusion (Poole et al. 2022, arXiv:2209.14988), in units of data: to modes, not to the law
    vsd   w (D' - D)    ProlificDreamer, Diff-Instruct (arXiv:2305.16213, arXiv:2305.18455): KL's between noised laws
    sid   of w (D - D') . ((D - x) - a (D - D')) / d, through D and D' (Zhou et al. 2024, arXiv:2404.04057)

and the fake EDM's denoising loss on what G makes, with the weights w of _generator.weight. No data are used.
Cost a row: fake 4F; student 3F and 2F of the others, of sid with their inputs' gradients 4.2F.
"""

from typing import Literal

import jax.numpy as jnp
from jax.lax import stop_gradient

from flowmaps import rows, samplers, times
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _generator, _terms
from flowmaps.rows import flat_mean
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles
from flowmaps.weightings import squared


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    objective: Literal["sds", "vsd", "sid"] = "vsd",
    weighting: _generator.Weighting = "error",
    between: tuple[float, float] = (0.2, 1.0),
    fisher: float = 1.2,
    fake_law: tuple = ("log_normal", -1.2, 1.2),
    data_std: float = 0.5,
    every: int = 1,
) -> Method:
    """objective, weighting: as above. between: shares of the path's clock from which the student's times are drawn,
    uniformly. fisher: a of sid. fake_law, data_std: of the fake's times, see times.on_path, and of the weights. every:
    steps between the student's updates.

    Raises UsageError for a weight without a bound, or a teacher that is not there (with the first batch).
    """
    _generator.check_weighting(weighting, interpolant, between)
    law = times.share_of(interpolant, *between)
    law_of_fake = times.on_path(interpolant, *fake_law)

    def fake_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond, x0 = rows.condition(batch), _generator.source(interpolant, batch["x0"], rows.fold(keys, 0))
        made = _generator.generated(roles.student, interpolant, x0, cond)
        return _generator.denoising(roles, interpolant, made, law_of_fake, data_std, rows.fold(keys, 1), cond)

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = rows.condition(batch)
        x = _generator.generated(roles.student, interpolant, batch["x0"], cond, rows.fold(keys, 2))
        t = law(rows.fold(keys, 0))
        if objective == "sds":
            x_t = _generator.noised(interpolant, x, t, rows.fold(keys, 1))
            real = _generator.denoised(_terms.teacher(roles), interpolant, x_t, t, cond)
            gap = x - real
        else:
            real, fake = _generator.estimates(roles, interpolant, x, t, rows.fold(keys, 1), cond)
            gap = fake - real
        weight = _generator.weight(weighting, interpolant, data_std, x, real, t)
        metrics = {"gap": jnp.mean(squared(gap))}
        if objective == "sid":
            return Loss(flat_mean(-gap * ((real - x) + fisher * gap) * weight), metrics)
        return Loss(_generator.with_gradient(x, stop_gradient(weight * gap)), metrics)

    losses = {"student": student_loss} if objective == "sds" else {"fake": fake_loss, "student": student_loss}
    return Method(
        losses,
        samplers.one_step,
        owners={} if objective == "sds" else {"fake": "fake"},
        periods={"student": every},
        init={} if objective == "sds" else {"fake": "teacher"},
        gaussian_source=True,
        teacher="velocity",
        diagonal=False,
        one_end=True,
    )
