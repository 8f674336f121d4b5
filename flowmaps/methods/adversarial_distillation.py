"""Adversarial diffusion distillation (ADD, Sauer et al. 2023, arXiv:2311.17042; no official training code exists). The
student jumps from states of real data at few fixed times s, x = X_{s,1}(x_s), and learns from

    a critic       game(x_1, x), on the feature maps of a frozen network (ADD) or, noised, inside of the teacher
                   (latent ADD, arXiv:2403.12015)
    the teacher    lambda c(t) |x - sg D(sg x_t)|^2 / d,  x_t noised anew, D one step of the teacher, or its flow's end

with c(t) = alpha / sqrt(alpha^2 + beta^2), the paper's "exponential" weight. The first s is the path's beginning, where
the student sees no data. The distillation alone contracts to the mean (its test shows it); the critic keeps the law.
Cost a row: student 3F, teacher 1F a step, and 2.1F of what the critic sees; critic 1F and 2F of that.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Float

from flowmaps import adversaries, rows, samplers, times
from flowmaps.errors import UsageError
from flowmaps.identities import flow_map
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _generator, _terms
from flowmaps.rows import flat_mean
from flowmaps.types import Array, Batch, Cond, Keys, Loss, Method, Roles

Points = Float[Array, "b *d"]
Row = Float[Array, " b"]


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    steps: int = 4,
    distillation: float = 2.5,
    teacher_steps: int = 1,
    between: tuple[float, float] = (0.02, 0.98),
    game: Literal["hinge", "logistic", "relativistic"] = "hinge",
    sees: Literal["features", "teacher", "samples"] = "features",
    law: tuple = ("uniform",),
    penalties: tuple[float, float] = (1e-5, 0.0),
    every: int = 1,
) -> Method:
    """steps: of the student's sampling, at whose equal times s it learns. distillation: lambda; 0: the critic alone.
    teacher_steps: of the teacher from t to the end, by DDIM; 1: D. between: shares of the path's clock from which t is
    drawn, uniformly. game, sees, penalties: see adversaries.make; "teacher" sees data and samples at times of `law`,
    see times.on_path, the others as they are. every: steps between the student's updates.

    Raises UsageError for a value out of its range, or a teacher or features that are not there (with the first batch).
    """
    if min(steps, teacher_steps) < 1 or distillation < 0:
        raise UsageError(
            f"method.steps={steps} and method.teacher_steps={teacher_steps} must be at least 1, and "
            f"method.distillation={distillation} at least 0"
        )
    adversary = adversaries.make(game=game, sees=sees, penalties=penalties)
    law_of_critic, law_of_teacher = times.on_path(interpolant, *law), times.share_of(interpolant, *between)
    alpha, beta = interpolant.alpha.value, interpolant.beta.value

    def made(roles: Roles, batch: Batch, keys: Keys, dropout: Keys | None = None) -> Points:
        """X_{s,1}(x_s) of a real example's x_s, at the path's beginning of noise alone."""
        index = jnp.floor(steps * rows.uniform(keys))
        s = times.at_index(interpolant, index, steps)
        state = interpolant.point(batch["x0"], batch["x1"], s)
        x_s = jnp.where(rows.expand(index, state) == 0, interpolant.start(batch["x0"]), state)
        return flow_map(roles.student, x_s, s, jnp.full_like(s, interpolant.t_max), rows.condition(batch), dropout)

    def judged(batch: Batch, samples: Points, keys: Keys) -> tuple[Points, Points, Row]:
        """Data and samples as the critic sees them, and the time."""
        if sees != "teacher":
            return batch["x1"], samples, jnp.full(len(samples), interpolant.t_max, samples.dtype)
        t = law_of_critic(rows.fold(keys, 0))
        return *_generator.noised_pair(interpolant, batch["x1"], samples, t, rows.fold(keys, 1)), t

    def critic_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        samples = stop_gradient(made(roles, batch, rows.fold(keys, 0)))
        loss = adversary.critic_loss(roles, *judged(batch, samples, rows.fold(keys, 1)), rows.condition(batch))
        return Loss(loss, {"game": jnp.mean(loss)})

    def wanted(roles: Roles, x: Points, t: Row, cond: Cond) -> Points:
        """Where the teacher's flow takes x at t, in its number of steps."""

        def onward(number: Array, x: Points) -> Points:
            here, there = (t + (interpolant.t_max - t) * (number + n) / teacher_steps for n in (0, 1))
            return _terms.teacher_step("ddim", roles, interpolant, x, here, there, cond)

        if teacher_steps == 1:
            return _generator.denoised(_terms.teacher(roles), interpolant, x, t, cond)
        return jax.lax.fori_loop(0, teacher_steps, onward, x)

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond, x = rows.condition(batch), made(roles, batch, rows.fold(keys, 0), rows.fold(keys, 2))
        played = adversary.student_loss(roles, *judged(batch, x, rows.fold(keys, 1)), cond)
        metrics = {"game": jnp.mean(played)}
        if distillation == 0:
            return Loss(played, metrics)
        t = law_of_teacher(rows.fold(keys, 3))
        x_t = stop_gradient(_generator.noised(interpolant, x, t, rows.fold(keys, 4)))
        apart = flat_mean((x - stop_gradient(wanted(roles, x_t, t, cond))) ** 2)
        metrics["distillation"] = jnp.mean(apart)
        return Loss(played + distillation * alpha(t) / jnp.hypot(alpha(t), beta(t)) * apart, metrics)

    return Method(
        {"critic": critic_loss, "student": student_loss},
        samplers.one_step if steps == 1 else samplers.make("renoising", interpolant=interpolant),
        owners={"critic": "critic"} | _terms.features_owner(sees == "features"),
        reads={"critic": adversary.reads},
        periods={"student": every},
        gaussian_source=True,
        teacher="velocity" if distillation or sees == "teacher" else "",
        diagonal=False,
        one_end=True,
    )
