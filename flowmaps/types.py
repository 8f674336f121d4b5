"""The contracts that every part speaks: what a velocity, a loss, a method and a sampler are."""

from collections.abc import Callable, Mapping
from itertools import accumulate
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import jax
import numpy as np
from jaxtyping import Float, Int, Key

Array = jax.Array
Keys = Key[Array, " b"]
"""One typed key a row: fold_in(step_key, global_row), so that batches may be cut in any way."""
Grid = Float[np.ndarray, " k"]
"""Times of a sampler, from the first to the last, known when the program is built: what a step computes may depend on
them."""
Params = Mapping[str, Any]

Cond = Mapping[str, Array]
"""{} or "label" [B] int32 (NULL_LABEL: unconditional), "guidance" [B], "interval" [B, 2]."""
Batch = Mapping[str, Array]
""""x1" [B, ...] data and "x0" [B, ...] source; "label" [B] where the data have classes."""

NULL_LABEL = -1


@runtime_checkable
class Velocity(Protocol):
    """The average velocity v_{s,t}(x); X_{s,t}(x) = x + (t - s) v_{s,t}(x) is the flow map.

    x [B, ...]; s, t [B] in any order; result [B, ...] in x's dtype, never below float32. `dropout` holds one
    key a row: the same keys share the mask between calls, None is deterministic, and a formula ignores it.
    """

    def __call__(
        self,
        x: Float[Array, "b *d"],
        s: Float[Array, " b"],
        t: Float[Array, " b"],
        cond: Cond,
        *,
        dropout: Keys | None = None,
    ) -> Float[Array, "b *d"]: ...


@runtime_checkable
class Manyheaded(Velocity, Protocol):
    """A velocity whose network has further outputs; those are read as velocities at s, unless the method reads them
    itself."""

    def heads(
        self,
        x: Float[Array, "b *d"],
        s: Float[Array, " b"],
        t: Float[Array, " b"],
        cond: Cond,
        *,
        dropout: Keys | None = None,
    ) -> tuple[Float[Array, "b *d"], ...]:
        """All outputs, from one evaluation."""
        ...


@runtime_checkable
class Noisy(Velocity, Protocol):
    """A velocity that knows the Gaussian part of x_t by itself; of others it is the source's, beta x0."""

    def velocity_and_noise(
        self, x: Float[Array, "b *d"], t: Float[Array, " b"], cond: Cond
    ) -> tuple[Float[Array, "b *d"], Float[Array, "b *d"]]:
        """b_t(x), and E[source_std z | x_t = x] for the part level(t) source_std z; from one evaluation."""
        ...

    def level(self, t: Float[Array, " b"]) -> Float[Array, " b"]:
        """That part's standard deviation, in units of source_std."""
        ...

    def ends(
        self, x: Float[Array, "b *d"], t: Float[Array, " b"], cond: Cond
    ) -> tuple[Float[Array, "b *d"], Float[Array, "b *d"]]:
        """E[x0 | x_t = x] and E[x1 | x_t = x], which b_t(x) does not tell beside another noise; from one evaluation."""
        ...


def evaluations(velocity: Velocity) -> int:
    """Network evaluations that one call of `velocity` costs: 1, or what a transform such as guidance says."""
    return getattr(velocity, "evaluations", 1)


class Roles(NamedTuple):
    """The callables that a loss may use, each already bound to its parameters."""

    student: Velocity
    """The network being trained."""
    target: Velocity
    """The student with stopped parameters, or their moving average; its input may carry gradient."""
    teacher: Velocity | None = None
    """A frozen, trained model; reads guidance from cond."""
    extras: Mapping[str, Callable] = {}
    """Other networks by role: log-variance head, critic, fake score, features."""


class LastLayer(NamedTuple):
    """The student as a function of the kernel of its network's last layer: the extra role "last_layer", a view of the
    student and no network of its own."""

    kernel: Array
    """The student's own."""
    student: Callable[[Array], Velocity]

    def __call__(self, kernel: Array) -> Velocity:
        """The student with another last kernel."""
        return self.student(kernel)


class Loss(NamedTuple):
    """What a loss gives back; the train step takes the mean, once."""

    per_example: Float[Array, " n"]
    """One value a row (or a group of rows)."""
    metrics: Mapping[str, Array]
    """Scalars to log; always the raw, unweighted residual of each term as well."""


class Samples(NamedTuple):
    """Generated examples and what they cost."""

    x: Float[Array, "b *d"]
    nfe: Int[Array, ""]
    """Network evaluations for one example, counted by the program that ran."""
    path: Float[Array, "k b *d"]
    """The states at the grid's times, from the first to the last."""


LossFn = Callable[[Roles, Batch, Keys, Array], Loss]
"""(roles, batch, keys [B], step) -> Loss."""
Sampler = Callable[[Roles, Array, Grid, Keys, Cond], Samples]
"""(roles, x0 [B, ...], grid [K + 1], keys [B], cond) -> Samples."""


class Stage(NamedTuple):
    """A part of a run. Before the next one roles take over weights, and the optimizers start afresh."""

    steps: int
    promote: Mapping[str, str]
    """Role -> the role whose weights it takes over."""
    generates: int | None = None
    """The number of sampling steps that its student learns; None: any."""


def stage_ends(stages: tuple[Stage, ...]) -> tuple[int, ...]:
    """The steps that a run has taken when each of its stages ends."""
    return tuple(accumulate(stage.steps for stage in stages))


class Guided(NamedTuple):
    """The guidance that a network has learned as an input."""

    low: float
    high: float
    """The least and the largest scale."""
    intervals: bool
    """Whether it has learned of intervals of times."""


class Method(NamedTuple):
    """A way to make a network satisfy an identity of the flow map."""

    losses: Mapping[str, LossFn]
    """Player -> its loss; players update in this order; most methods: {"student": ...}."""
    sampler: Sampler
    """The default way to generate."""
    owners: Mapping[str, str] = {}
    """Extra role -> the player that trains it, or "frozen"."""
    target_decay: Callable[[Array], Array] | None = None
    """Step -> decay of the target's moving average; None: the target is the stopped student."""
    reads: Mapping[str, str] = {}
    """Extra role -> what its network takes maps of: "samples", "features" or "inside_ROLE"."""
    periods: Mapping[str, int] = {}
    """Player -> update every so many steps (default 1)."""
    init: Mapping[str, str] = {}
    """Role -> the role whose weights it starts from."""
    stages: tuple[Stage, ...] = ()
    """The parts of the run, whose steps add up to it; none: it has one."""
    diagonal_only: bool = False
    """Whether it trains v_{t,t} alone, so that its network has learned nothing about a second time."""
    gaussian_source: bool = False
    """Whether it holds for a Gaussian source independent of the data alone."""
    heads: int = 1
    """Outputs of the student's network, read by student.heads; the first stands for v_{s,t}."""
    guidance: Guided | None = None
    """What the student's network, which takes guidance as an input, has learned of it; None: it takes none."""
    teacher: Literal["", "velocity", "map", "map to the end"] = ""
    """What its losses ask of the teacher: nothing, v_{t,t}, v_{s,t} at any times, or at t = 1."""
    diagonal: bool = True
    """Whether its student's v_{t,t} is the velocity."""
    pairs: bool = False
    """Whether it learns from stored pairs of noise and sample."""
    one_end: bool = False
    """Whether it trains maps to the path's end alone, perhaps beside the diagonal."""
    model: Callable[[Manyheaded], Noisy] | None = None
    """The network with its heads -> the student's velocity, which has learned its own noise; None: the first head."""
