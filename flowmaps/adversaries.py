"""Adversarial terms: what a critic and a generator play for, and any method with a critic beside it.

A critic D gives logits of what it sees of an example: the example itself, the feature maps of a frozen network, or what
a denoiser shows inside of x_t. Several logits (one a map) count as their mean.

    hinge          critic max(0, 1 - D(real)) + max(0, 1 + D(made))               student -D(made)
    logistic       critic softplus(-D(real)) + softplus(D(made))                  student softplus(-D(made))
    relativistic   critic softplus(D(made) - D(real))                             student softplus(D(real) - D(made))

(arXiv:1705.02894; Goodfellow et al. 2014, arXiv:1406.2661; arXiv:1807.00734, whose pairs are the rows). The critic of
the second is at rest at D = log p/q of the two densities, where the student's gradient is -(1 - sigmoid(D)) grad D.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.lax import stop_gradient
from jaxtyping import Float

from flowmaps import lookup, rows, times, weightings
from flowmaps.errors import UsageError
from flowmaps.identities import flow_map
from flowmaps.interpolants import Interpolant
from flowmaps.rows import flat_sum
from flowmaps.types import Array, Batch, Cond, Keys, Loss, Method, Roles, Velocity

Row = Float[Array, " b"]
Points = Float[Array, "b *d"]
Logits = Float[Array, "b k"]
Maps = tuple[Float[Array, "b ..."], ...]
"""What a critic sees of each row."""


class Game(NamedTuple):
    """Logits of real and of made rows -> the losses of the two players."""

    critic: Callable[[Logits, Logits], Logits]
    student: Callable[[Logits, Logits], Logits]


softplus = jax.nn.softplus
GAMES = {
    "hinge": Game(lambda real, made: jax.nn.relu(1 - real) + jax.nn.relu(1 + made), lambda real, made: -made),
    "logistic": Game(lambda real, made: softplus(-real) + softplus(made), lambda real, made: softplus(-made)),
    "relativistic": Game(lambda real, made: softplus(made - real), lambda real, made: softplus(real - made)),
}


class Adversary(NamedTuple):
    """A critic's place in a method."""

    game: Game
    sees: str
    """"samples", "features", or the role of a network of which it sees the inside, such as "fake" or "teacher"."""
    penalties: tuple[float, float]
    """Weights of R1 and R2, |grad D|^2 / 2 by what the critic sees of real and of made rows (arXiv:1801.04406)."""

    @property
    def reads(self) -> str:
        """The extra role whose outputs the critic sees, or "samples"."""
        return self.sees if self.sees in ("samples", "features") else f"inside_{self.sees}"

    def view(self, roles: Roles, x: Points, t: Row, cond: Cond) -> Maps:
        """What the critic sees of x at t."""
        if self.sees == "samples":
            return (x,)
        if self.sees == "features":
            return roles.extras["features"].heads(x)
        return roles.extras[self.reads](x, t, cond)

    def critic_loss(self, roles: Roles, real: Points, made: Points, t: Row, cond: Cond) -> Row:
        """Of pairs of rows, both at t."""
        judge, total = roles.extras["critic"], 0.0
        seen = [self.view(roles, x, t, cond) for x in (real, made)]
        for maps, weight in zip(seen, self.penalties, strict=True):
            if weight:
                total = total + weight * steepness(lambda maps: judge(maps, t, cond), maps)
        return total + self.game.critic(*(judge(maps, t, cond) for maps in seen)).mean(axis=1)

    def student_loss(self, roles: Roles, real: Points, made: Points, t: Row, cond: Cond) -> Row:
        """Of pairs of rows, both at t."""
        logits = (roles.extras["critic"](self.view(roles, x, t, cond), t, cond) for x in (real, made))
        return self.game.student(*logits).mean(axis=1)


def steepness(critic: Callable[[Maps], Logits], maps: Maps) -> Row:
    """|grad D|^2 / 2 of each row, D the mean of its logits."""
    slopes = jax.grad(lambda maps: critic(maps).mean(axis=1).sum())(maps)
    return sum(flat_sum(slope**2) for slope in slopes) / 2


def make(
    *,
    game: Literal["hinge", "logistic", "relativistic"] = "logistic",
    sees: Literal["samples", "features", "fake", "teacher"] = "samples",
    penalties: tuple[float, float] = (0.0, 0.0),
) -> Adversary:
    """An adversary from plain values. Raises UsageError for penalties below 0."""
    if len(penalties) != 2 or min(penalties) < 0:
        raise UsageError(f"penalties={penalties} must be two weights of at least 0, R1's and R2's")
    return Adversary(GAMES[game], sees, tuple(penalties))


def opposed(
    method: Method,
    *,
    interpolant: Interpolant,
    weight: float = 0.0,
    start: int = 0,
    adaptive: bool = False,
    law: tuple = ("uniform",),
    game: Literal["hinge", "logistic", "relativistic"] = "hinge",
    sees: Literal["samples", "features", "teacher"] = "samples",
    penalties: tuple[float, float] = (0.0, 0.0),
) -> Method:
    """The method with a critic of X_{s,1}(x_s), its student's samples from points of the path, against what it learns
    from, data or stored samples: CTM's (arXiv:2310.02279, eq. 8), consistency distillation's, Align Your Flow's
    finetuning (arXiv:2506.14603), and any other's that learns a map. Cost: 3F of the student and 1F for the critic a
    row more.

    weight: of the student's term; 0: the method as it is. start: steps before it counts; a GAN from the start
    diverges. adaptive: whether the weight is also times the ratio of the two gradients' lengths in the student's last
    layer, the method's over the term's, of each part of an accumulated batch. law: of s. The rest: see `make`.

    Raises UsageError for a value out of its range, or a method that has a critic or learns no map.
    """
    if weight == 0:
        return method
    if weight < 0 or start < 0:
        raise UsageError(f"adversary.weight={weight} and adversary.start={start} must be at least 0")
    if "critic" in {**method.losses, **method.owners}:
        raise UsageError(
            f"adversary.weight={weight} puts a critic beside a method, and this one has its own: set it to 0"
        )
    if method.diagonal_only:
        raise UsageError(f"adversary.weight={weight} asks for samples in one step, and this method learns none")
    adversary, draw = make(game=game, sees=sees, penalties=penalties), times.on_path(interpolant, *law)

    def made(student: Velocity, batch: Batch, keys: Keys) -> tuple[Points, Row, Cond]:
        """Samples from points of the path, and the time and condition at which the critic sees them."""
        cond = rows.condition(batch)
        s = draw(rows.fold(keys, 0))
        end = jnp.full_like(s, interpolant.t_max)
        x_s = interpolant.point(batch["x0"], batch["x1"], s)
        return flow_map(student, x_s, s, end, cond, rows.fold(keys, 1)), end, cond

    def critic_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        samples, end, cond = made(roles.student, batch, keys)
        loss = adversary.critic_loss(roles, batch["x1"], stop_gradient(samples), end, cond)
        return Loss(loss, {"game": jnp.mean(loss)})

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        def both(roles: Roles) -> tuple[tuple[Row, Row], dict[str, Array]]:
            """The method's own loss, and what the student loses to the critic."""
            own = method.losses["student"](roles, batch, rows.fold(keys, 0), step)
            samples, end, cond = made(roles.student, batch, rows.fold(keys, 1))
            played = weightings.sloped(lambda x: adversary.student_loss(roles, batch["x1"], x, end, cond), samples)
            return (own.per_example, played), dict(own.metrics)

        share = jnp.where(step >= start, weight, 0.0)
        if not adaptive:
            (loss, played), metrics = both(roles)
        else:
            loss, played, ratio, metrics = weightings.balanced(both, roles)
            metrics["game_ratio"], share = ratio, share * ratio
        term = jnp.mean(played)
        return Loss(loss + share * term, {**metrics, "game": term})

    return method._replace(
        losses={"critic": critic_loss, **method.losses, "student": student_loss},
        owners={**method.owners, "critic": "critic"} | ({"features": "frozen"} if sees == "features" else {}),
        reads={**method.reads, "critic": adversary.reads},
        teacher=method.teacher or ("velocity" if sees == "teacher" else ""),
    )


OPTIONS = lookup.options(opposed, ("method", "interpolant"))
"""Of `opposed`, with their defaults."""
