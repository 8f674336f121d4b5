"""Progressive distillation (Salimans, Ho 2022, arXiv:2202.00512). In the stage of N steps the student learns to make in
one what its teacher X', the student of the stage before, makes in two: with s = i / N, t = s + 1 / N, u between them,

    L = E w |v_st(x_s) - sg[v'_su(x_s) + v'_ut(X'_su(x_s))] / 2|^2,

the semigroup identity with frozen legs. A student that predicts its ends and holds them from s to t makes DDIM's steps
(arXiv:2010.02502). N halves from a stage to the next; the first teacher is the model that training starts from
(config.init_from), and the network needs no second time. w is in units of the paper's predictions: from the residual,
held as the difference of two chords, follow those of E[x1 | x_s] and E[x0 | x_s], and

    data |dx1|^2 (constant weight)     noise |dx0|^2 (SNR)     truncated max of both     v |dx1|^2 + |dx0|^2 (SNR + 1)

Cost: 3F a row, and 2F of the teacher; inputs from noise, 2 (N - 1) F more.
"""

import math
from typing import Literal

import jax.numpy as jnp
from jax import lax
from jax.lax import stop_gradient
from jaxtyping import Float

from flowmaps import rows, samplers, times
from flowmaps.errors import UsageError
from flowmaps.identities import flow_map, semigroup
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.rows import expand
from flowmaps.solvers import steps
from flowmaps.types import Array, Batch, Cond, Keys, Loss, Method, Roles, Stage, Velocity, stage_ends
from flowmaps.weightings import squared

Row = Float[Array, " b"]
Points = Float[Array, "b *d"]


def halvings(first: int, last: int, total_steps: int, longer: int) -> tuple[Stage, ...]:
    """A stage for each number of steps of a student, from first / 2 to last; the `longer` last ones are twice as long.

    Raises UsageError where `first` is not a power of 2 times `last`, or training has too few steps.
    """
    count = round(math.log2(first / last)) if 1 <= last < first else 0
    if count < 1 or last * 2**count != first:
        raise UsageError(f"method.first={first} must be method.last={last} doubled once or more often")
    shares = [2 if place >= count - longer else 1 for place in range(count)]
    unit = total_steps // sum(shares)
    if unit < 1:
        raise UsageError(f"train.steps={total_steps} are fewer than the {sum(shares)} parts that {count} stages have")
    lengths = [unit * share for share in shares]
    lengths[-1] += total_steps - sum(lengths)
    promote = {"teacher": "student"}
    return tuple(Stage(n, promote, first // 2 ** (place + 1)) for place, n in enumerate(lengths))


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    first: int = 64,
    last: int = 1,
    longer: int = 2,
    space: Literal["data", "noise", "truncated", "v", "velocity", "state"] = "truncated",
    inputs: Literal["data", "noise"] = "data",
    teacher_step: Literal["map", "ancestral"] = "map",
    label_dropout: float = 0.0,
) -> Method:
    """first, last: steps of the first teacher and of the last student. longer: how many stages at the end are twice as
    long. space: of w, see above; "velocity" is |r|^2 of the residual r itself, "state" (t - s)^2 |r|^2. inputs: x_s on
    the path of data, or where the teacher takes noise. teacher_step: its map, or ancestral sampling from its ends, of
    which the student learns the mean.

    Raises UsageError for a `first` that is not `last` doubled, or fewer steps of training than stages.
    """
    parts = halvings(first, last, total_steps, longer)
    begins = jnp.asarray(stage_ends(parts)[:-1], jnp.int32)

    def generated(teacher: Velocity, batch: Batch, index: Row, count: Array, cond: Cond) -> Points:
        """The source carried to the time index / count by the teacher's steps."""

        def advance(number: Array, x: Points) -> Points:
            s, t = (times.at_index(interpolant, jnp.full_like(index, number + side), 2 * count) for side in (0, 1))
            there = expand(2 * index, x) <= number
            return jnp.where(there, x, flow_map(teacher, x, s, t, cond))

        return lax.fori_loop(0, (2 * count - 2).astype(jnp.int32), advance, interpolant.start(batch["x0"]))

    def drawn(teacher: Velocity, x: Points, s: Row, t: Row, cond: Cond, keys: Keys) -> Points:
        """The average velocity of two steps of ancestral sampling from s to t."""
        middle, moved = (s + t) / 2, x
        for stream, (start, stop) in enumerate(((s, middle), (middle, t))):
            moved = steps.ancestral(teacher, interpolant, moved, start, stop, cond, rows.fold(keys, stream))
        return (moved - x) / expand(t - s, x)

    def distances(residual: Points, s: Row, t: Row) -> dict[str, Row]:
        """|r|^2 in the units of each prediction. The ends are linear in the velocity, and x_s is the same for both."""
        ends = interpolant.ends_from_average(jnp.zeros_like(residual), residual, s, t)
        data, noise, plain = squared(ends.data), squared(ends.noise) / interpolant.source_std**2, squared(residual)
        return {
            "data": data,
            "noise": noise,
            "truncated": jnp.maximum(data, noise),
            "v": data + noise,
            "velocity": plain,
            "state": (t - s) ** 2 * plain,
        }

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        teacher, dropout = _terms.teacher(roles), rows.fold(keys, 2)
        count = first * 0.5 ** (1 + jnp.sum(step >= begins))
        index = jnp.floor(count * rows.uniform(rows.fold(keys, 1)))
        s, t = (times.at_index(interpolant, index + side, count) for side in (0, 1))
        if inputs == "data":
            x = interpolant.point(batch["x0"], batch["x1"], s)
        else:
            x = stop_gradient(generated(teacher, batch, index, count, cond))
        if teacher_step == "map":
            residual = semigroup(roles.student, teacher, x, s, t, jnp.full_like(s, 0.5), cond, dropout=dropout)
        else:
            aim = stop_gradient(drawn(teacher, x, s, t, cond, rows.fold(keys, 3)))
            residual = roles.student(x, s, t, cond, dropout=dropout) - aim
        far = distances(residual, s, t)
        return Loss(far[space], {"map": jnp.mean(far["velocity"]), "sampling_steps": count})

    return Method(
        {"student": student_loss},
        samplers.composed,
        owners={"teacher": "frozen"},
        init={"teacher": "student"},
        stages=parts,
        teacher="map",
    )
