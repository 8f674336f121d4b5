"""Consistency models. With f(x, s) = X_{s,1}(x) and s < u,

    L = E w d( f(x_s, s), sg f(x_u, u) ),

the semigroup identity whose first leg is the path's own, x_u on the path of x_s (training), or a step of a teacher
from x_s (distillation, CD); what varies besides is how u comes to s:

    square_root   s and u neighbours on a grid of N times, N growing as a root: CT (Song et al. 2023, arXiv:2303.01469)
    doubling      N doubles at equal intervals: iCT (Song, Dhariwal 2023, arXiv:2310.14189)
    ratio         sigma(u) = sigma(s) (1 - n / q^stage), of all times: ECT (Geng et al. 2024, arXiv:2406.14548), which
                  starts as denoising (u at the path's end) and goes on from a diffusion model (config.init_from)

A grid is uniform in the path's own clock: on `variance_exploding` Karras' noise levels sigma. f is the identity at the
path's end by the prediction: `consistency`, or `edm`, which holds its ends, and so takes the path's last noise off. The
diagonal is not learned. Cost: 4F a row, and 1F or 2F of the teacher; a perceptual distance adds its network's passes.
"""

import math
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Float

from flowmaps import identities, rows, samplers, times, weightings
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.times import Pair
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles

Row = Float[Array, " b"]
Schedule = Callable[[Array], Array]
"""step [] -> a number []."""


def square_root(first: int, last: int, total_steps: int) -> Schedule:
    """CT's number of intervals: sqrt(k / K ((s1 + 1)^2 - s0^2) + s0^2) - 1, rounded up, from s0 - 1 to s1."""

    def intervals(step: Array) -> Array:
        share = step.astype(jnp.float32) / total_steps
        return jnp.maximum(jnp.ceil(jnp.sqrt(share * ((last + 1) ** 2 - first**2) + first**2) - 1), 1)

    return intervals


def doubling(first: int, last: int, total_steps: int) -> Schedule:
    """iCT's number of intervals: s0 2^floor(k / K'), at most s1, K' = floor(K / (log2 floor(s1 / s0) + 1)).

    Raises UsageError where a run is too short to double so often.
    """
    stages = math.floor(math.log2(last // first)) + 1
    if total_steps < stages:
        raise UsageError(
            f"method.intervals={(first, last)} double {stages - 1} times, more often than train.steps={total_steps} "
            "allow: train longer, or end with fewer intervals"
        )
    each = total_steps // stages

    def intervals(step: Array) -> Array:
        return jnp.minimum(first * 2.0 ** (step // each), last)

    return intervals


def decay_of(intervals: Schedule, first: int, initial: float) -> Schedule:
    """CT's decay of the target's average: exp(s0 log(mu0) / N)."""
    return lambda step: jnp.exp(first * math.log(initial) / intervals(step))


def time_of_ratio(interpolant: Interpolant, s: Row, ratio: tuple[float, float, float], stage: Array | int) -> Row:
    """The time of ECT's smaller level: sigma(s) (1 - (1 + k sigmoid(-b sigma(s))) / q^stage), or the path's end."""
    (q, k, b), sigma = ratio, interpolant.sigma(s)
    smaller = sigma * jnp.maximum(1 - (1 + k * jax.nn.sigmoid(-b * sigma)) / q**stage, 0)
    return interpolant.time_of_level(smaller / interpolant.source_std)


def inverse(gap: Row) -> Row:
    """1 / gap, and 0 where there is none: at the path's end, and where float32 knows no smaller level."""
    return jnp.where(gap > 0, 1 / jnp.where(gap > 0, gap, 1.0), 0.0)


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    leg: Literal["path", "ddim", "heun"] = "path",
    schedule: Literal["square_root", "doubling", "ratio"] = "square_root",
    intervals: tuple[int, int] = (2, 150),
    stages: int = 8,
    ratio: tuple[float, float, float] = (2.0, 8.0, 1.0),
    law: tuple = ("uniform",),
    distance: _terms.Distance = "squared",
    huber: float = 0.00054,
    weighting: Literal["constant", "gap"] = "constant",
    initial_decay: float = 0.0,
    label_dropout: float = 0.0,
) -> Method:
    """leg: x_u on the path, or by a step of the teacher from x_s (solvers/steps.py). intervals: (s0, s1) of the grid,
    which ends with s1 and begins with s0 ("doubling") or s0 - 1 ("square_root"); the papers' N is one more. stages,
    ratio: q, k and b of ECT, n = 1 + k sigmoid(-b sigma(s)). law: of s, see times.on_path. distance, huber: see
    _terms.far; CT and CD were published with "perceptual". weighting "gap": 1 / (sigma(s) - sigma(u)), and 0 where the
    two are one. initial_decay: mu0 of the target's average; 0: the target is the stopped student.

    Raises UsageError for a schedule longer than training, intervals that do not rise, or an average without a grid.
    """
    if not 1 <= intervals[0] <= intervals[1]:
        raise UsageError(f"method.intervals={intervals} must be two rising numbers of at least 1")
    law_of_s = times.on_path(interpolant, *law)
    start, end = interpolant.t_min, interpolant.t_max
    counts = {"square_root": square_root, "doubling": doubling}
    if schedule == "ratio" and total_steps < stages:
        raise UsageError(f"method.stages={stages} of train.steps={total_steps}: a stage has a step at least")
    if initial_decay and schedule == "ratio":
        raise UsageError(f"method.initial_decay={initial_decay} follows the grid's intervals, and 'ratio' has none")
    count = counts[schedule](*intervals, total_steps) if schedule in counts else None

    def neighbours(s: Row, step: Array) -> Pair:
        """The times of the grid around s."""
        cells = count(step)
        cell = jnp.clip(jnp.floor((s - start) / (end - start) * cells), 0, cells - 1)
        return Pair(*(times.at_index(interpolant, cell + side, cells) for side in (0, 1)))

    def shrunk(s: Row, step: Array) -> Pair:
        """s, and the time of a smaller level: the path's end in the first stage at small levels."""
        stage = jnp.minimum(1 + step // (total_steps // stages), stages)
        return Pair(s, time_of_ratio(interpolant, s, ratio, stage))

    pair = shrunk if schedule == "ratio" else neighbours

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        s, u = pair(law_of_s(rows.fold(keys, 1)), step)
        x_s, x_u = (interpolant.point(batch["x0"], batch["x1"], t) for t in (s, u))
        if leg != "path":
            x_u = _terms.teacher_step(leg, roles, interpolant, x_s, s, u, cond)
        ends, dropout = jnp.full_like(s, end), rows.fold(keys, 2)
        between = roles.student, roles.target, (x_s, x_u), s, u, ends, cond, dropout
        moved, aim = identities.consistent_states(*between)
        far = _terms.far(roles, moved, aim, distance, huber)
        weight = inverse(interpolant.sigma(s) - interpolant.sigma(u)) if weighting == "gap" else 1.0
        return Loss(weight * far, {"map": jnp.mean(weightings.squared(moved - aim))})

    return Method(
        {"student": student_loss},
        samplers.make("renoising", interpolant=interpolant),
        _terms.features_owner(distance == "perceptual"),
        target_decay=decay_of(count, intervals[0], initial_decay) if initial_decay else None,
        teacher="" if leg == "path" else "velocity",
        diagonal=False,
        one_end=True,
    )
