"""Improved distribution matching distillation (DMD2, Yin et al. 2024, arXiv:2405.14867): DMD without its regression.
The fake is updated at every step, the student at every few, so that the fake keeps up with it (two time scales); and a
critic on the inside of the fake sees noised data beside noised samples, whose gradient trains the fake as well:

    fake and critic   L = EDM's denoising of samples  +  critic weight * game(critic; x_t of data, x_t of samples)
    student           L = KL of DMD  +  adversarial weight * game(student)

With several steps the student jumps from its times to the end, and learns on states of its own: a rollout that jumps
and puts noise back (backward simulation), as its sampler does. Cost a row: fake 4F, critic 6F; student 3F, 2F of the
others and 2.1F for the critic, each (steps - 1) F more.
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
from flowmaps.methods import _generator
from flowmaps.rows import expand
from flowmaps.types import Array, Batch, Cond, Keys, Loss, Method, Roles, Velocity
from flowmaps.weightings import squared

Points = Float[Array, "b *d"]
Row = Float[Array, " b"]


def own_state(
    student: Velocity, interpolant: Interpolant, x0: Points, steps: int, keys: Keys, cond: Cond
) -> tuple[Points, Row]:
    """A state of the student's own sampling in `steps` equal steps, before one of them drawn at random, and its time;
    stopped."""
    index = jnp.floor(steps * rows.uniform(rows.fold(keys, 0)))
    end = jnp.full_like(index, interpolant.t_max)

    def jump(number: Array, x: Points) -> Points:
        """The state before step `number` becomes that before the next, in the rows that are not yet where they go."""
        here, there = (times.at_index(interpolant, jnp.full_like(index, number + n), steps) for n in (0, 1))
        made = flow_map(student, x, here, end, cond)
        renoised = _generator.noised(interpolant, made, there, rows.fold(rows.fold(keys, 1), number))
        return jnp.where(expand(index, x) > number, renoised, x)

    x = jax.lax.fori_loop(0, steps - 1, jump, interpolant.start(x0))
    return stop_gradient(x), times.at_index(interpolant, index, steps)


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    steps: int = 1,
    every: int = 5,
    adversarial: float = 3e-3,
    critic_weight: float = 1e-2,
    game: Literal["hinge", "logistic", "relativistic"] = "logistic",
    sees: Literal["fake", "teacher", "samples"] = "fake",
    penalties: tuple[float, float] = (0.0, 0.0),
    weighting: _generator.Weighting = "error",
    between: tuple[float, float] = (0.02, 0.98),
    fake_law: tuple = ("uniform",),
    data_std: float = 0.5,
) -> Method:
    """steps: of the student's sampling. every: steps between its updates. adversarial, critic_weight: weights of the
    game in the student's and the fake's loss; 0 and 0: no critic. game, sees, penalties: see adversaries.make.
    weighting: of the gap, see _generator.weight; "error" is the paper's. between: shares of the path's clock from which
    the student's times are drawn, uniformly; the critic's are of all before the second. fake_law, data_std: of the
    fake's times, see times.on_path, and of the weights.

    Raises UsageError for a value out of its range, or a teacher that is not there (with the first batch).
    """
    if steps < 1 or adversarial < 0 or (critic_weight > 0) != (adversarial > 0):
        raise UsageError(
            f"method.steps={steps} must be at least 1, and method.adversarial={adversarial} and method.critic_weight="
            f"{critic_weight} both above 0, or both 0"
        )
    _generator.check_weighting(weighting, interpolant, between)
    law, anywhere = times.share_of(interpolant, *between), times.share_of(interpolant, 0.0, between[1])
    law_of_fake = times.on_path(interpolant, *fake_law)
    adversary = adversaries.make(game=game, sees=sees, penalties=penalties)

    def made(roles: Roles, batch: Batch, keys: Keys, dropout: Keys | None = None) -> Points:
        cond, x0 = rows.condition(batch), _generator.source(interpolant, batch["x0"], rows.fold(keys, 0))
        x, s = own_state(roles.target, interpolant, x0, steps, rows.fold(keys, 1), cond)
        return flow_map(roles.student, x, s, jnp.full_like(s, interpolant.t_max), cond, dropout)

    def judged(batch: Batch, samples: Points, keys: Keys) -> tuple[Points, Points, Row]:
        """Data and samples as the critic sees them, and the time."""
        t = anywhere(rows.fold(keys, 0))
        return *_generator.noised_pair(interpolant, batch["x1"], samples, t, rows.fold(keys, 1)), t

    def fake_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond, samples = rows.condition(batch), stop_gradient(made(roles, batch, rows.fold(keys, 0)))
        own = _generator.denoising(roles, interpolant, samples, law_of_fake, data_std, rows.fold(keys, 1), cond)
        if not critic_weight:
            return own
        played = adversary.critic_loss(roles, *judged(batch, samples, rows.fold(keys, 2)), cond)
        return Loss(own.per_example + critic_weight * played, {**own.metrics, "game": jnp.mean(played)})

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond, x = rows.condition(batch), made(roles, batch, rows.fold(keys, 2), rows.fold(keys, 4))
        t = law(rows.fold(keys, 0))
        gradient, gap = _generator.matching_gradient(
            roles, interpolant, x, t, rows.fold(keys, 1), cond, weighting=weighting, data_std=data_std
        )
        loss, metrics = _generator.with_gradient(x, gradient), {"gap": jnp.mean(squared(gap))}
        if adversarial:
            played = adversary.student_loss(roles, *judged(batch, x, rows.fold(keys, 3)), cond)
            loss, metrics["game"] = loss + adversarial * played, jnp.mean(played)
        return Loss(loss, metrics)

    critic = {"critic": "fake"} if adversarial else {}
    return Method(
        {"fake": fake_loss, "student": student_loss},
        samplers.one_step if steps == 1 else samplers.make("renoising", interpolant=interpolant),
        owners={"fake": "fake", **critic},
        reads={role: adversary.reads for role in critic},
        periods={"student": every},
        init={"fake": "teacher"},
        gaussian_source=True,
        teacher="velocity",
        diagonal=False,
        one_end=True,
    )
