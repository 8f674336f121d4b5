"""Generation by index: sample i comes from the key fold_in(key(seed), i) and, with classes, has label i mod classes.

So its noise and its label do not depend on the number of samples, of steps, of rows in a batch, of devices or of hosts.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from flowmaps import checks, data, experiment, lookup, rows, samplers, sharding, solvers, trained
from flowmaps.errors import UsageError
from flowmaps.experiment import Experiment
from flowmaps.measurements import GUIDANCE
from flowmaps.solvers import grids
from flowmaps.types import Array, Cond, Grid, Keys, Params, Sampler, Samples


class Edit(NamedTuple):
    """An example that is noised to a time, from which generation starts in place of the source (SDEdit,
    arXiv:2108.01073)."""

    example: Float[np.ndarray, "*d"]
    time: float


class Program(NamedTuple):
    """The compiled generation of batches by one sampler."""

    batch: Callable[[Params, int, int, Grid], tuple[Array, Array]]
    """(params, seed, index of the first sample, grid) -> (samples, evaluations each); compiled once for each grid."""
    batch_size: int
    sampler: str
    """What the sampler is: its name, and its options in brackets."""
    edit: Edit | None


class Generated(NamedTuple):
    """Samples on the host and what they cost."""

    x: Float[np.ndarray, "n *d"]
    """Or what is kept of them, see `samples`."""
    labels: Int[np.ndarray, " n"] | None
    nfe: int
    """Evaluations of each."""
    seconds: float
    """Of making all of them."""


def time_grid(exp: Experiment, steps: int, first: float | None = None) -> Grid:
    """The times of config.sample.grid; with `first` those after it, and itself before them.

    Raises UsageError for an unknown grid, less than one step, more than a chain has, or a `first` outside of the path.
    """
    length = exp.interpolant.num_steps
    if length is not None and steps > length:
        raise UsageError(f"{steps} steps along a chain of interpolant.num_steps={length}: take at most as many")
    grid = grids.make(exp.config.sample.grid, exp.interpolant, steps)
    if first is None:
        return grid
    if not grid[0] <= first < grid[-1]:
        raise UsageError(f"sample.start_time={first} must lie in [{grid[0]:.4g}, {grid[-1]:.4g})")
    return np.concatenate([[first], grid[grid > first + 1e-6]])


def sample_keys(seed: Int[Array, ""] | int, indices: Int[Array | np.ndarray, " b"]) -> Keys:
    """The keys of the samples with these indices."""
    return jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(seed), indices)


def noise(exp: Experiment, keys: Keys) -> Float[Array, "b *d"]:
    """x0 of the samples with these keys, from the source N(0, source_std^2 I)."""
    return exp.interpolant.source_std * rows.normal(rows.fold(keys, 0), exp.dataset.shape)


def noised(exp: Experiment, x0: Float[Array, "b *d"], edit: Edit) -> Float[Array, "b *d"]:
    """x_t of the example with each row of the source."""
    return exp.interpolant.point(x0, jnp.broadcast_to(edit.example, x0.shape), jnp.full(x0.shape[:1], edit.time))


def given_source(exp: Experiment, seed: int, first: int, count: int) -> Float[np.ndarray, "b *d"] | None:
    """x0 of the samples first, ..., first + count - 1 from the second data set, where there is one."""
    if exp.dataset.source is None:
        return None
    return data.draw(exp.dataset.source, np.arange(first, first + count), seed)


def condition(exp: Experiment, indices: Int[Array | np.ndarray, " b"]) -> Cond:
    """The labels of the samples with these indices: balanced over the classes, where there are any."""
    classes = exp.dataset.num_classes
    return {"label": jnp.asarray(indices % classes, jnp.int32)} if classes else {}


def labels(exp: Experiment, num_samples: int) -> Int[np.ndarray, " n"] | None:
    """The labels of the first samples; None without classes."""
    classes = exp.dataset.num_classes
    return np.arange(num_samples, dtype=np.int32) % classes if classes else None


def make_sampler(exp: Experiment, name: str = "default") -> Sampler:
    """A sampler or solver by name; "default" is config.sample.sampler, and where that is "default" too the solver of
    config.sample.solver on the diagonal, or without one the method's own sampler."""
    values = exp.config.sample
    chosen = values.sampler if name == "default" else name
    if chosen == "default":
        if not values.solver:
            return own_sampler(exp)
        chosen = "diagonal"
    if exp.method.one_end and chosen in ("composed", "gamma"):
        raise UsageError(
            f"sampler {chosen!r} asks for maps between all times, and method {exp.config.method.name!r} trains those "
            "to the end alone: sample by one_step or renoising"
        )
    solver = chosen if lookup.parse_call("sampler", chosen)[0] in solvers.names() else values.solver or "euler"
    if chosen == "renoising" and samplers.draws(exp.method.sampler):
        return own_sampler(exp)
    if not tells_score(exp) and adds_noise(exp, chosen, solver):
        raise UsageError(
            f"{chosen if chosen != 'diagonal' else solver} needs the score, which the velocity tells for a Gaussian "
            "source independent of the data alone: sample without noise, or a stochastic interpolant by euler_maruyama "
            "without guidance"
        )
    return samplers.make(chosen, interpolant=exp.interpolant, solver=solver, gamma=values.gamma)


def own_sampler(exp: Experiment) -> Sampler:
    """The method's. Raises UsageError where it adds noise and samples start from other data."""
    if exp.dataset.source is not None and samplers.draws(exp.method.sampler):
        raise UsageError(
            f"method {exp.config.method.name!r} samples by adding noise, and these samples start from data.source: set "
            "sample.sampler to 'one_step'"
        )
    return exp.method.sampler


def tells_score(exp: Experiment) -> bool:
    """Whether the score is the velocity's conversion: of a Gaussian source alone, without a latent beside it."""
    return checks.gaussian_source(exp.config, exp.dataset) and exp.method.model is None


def guidance(exp: Experiment) -> dict[str, Any]:
    """What samples say of their guidance."""
    chosen = exp.config.guidance
    weak = trained.named(chosen.weak)
    return dict(zip(GUIDANCE, (chosen.scale, list(chosen.interval), weak), strict=True))


def adds_noise(exp: Experiment, chosen: str, solver: str) -> bool:
    """Whether a sampler, or the solver that it uses, adds noise for which it needs the velocity to tell the score."""
    if chosen not in ("diagonal", solver):
        return samplers.adds_noise(chosen, exp.config.sample.gamma)
    readable = exp.method.model is not None and exp.config.guidance.scale == 1
    return solvers.needs_gaussian_source(solver, learned_noise=readable)


def program(exp: Experiment, *, sampler: str = "default", batch_size: int, edit: Edit | None = None) -> Program:
    """The generation of `batch_size` consecutive samples (rounded up to a multiple of the devices), from the source or
    from what is edited.

    A batch is cut over the devices, and gathered on each: so a source that is given, whose rows lie on one device each,
    cannot lend its memory to the samples. Raises UsageError for an unknown sampler.
    """
    if batch_size < 1:
        raise UsageError(f"a batch of {batch_size} samples: it holds at least 1")
    sample = make_sampler(exp, sampler)
    batch_size = -(-batch_size // exp.mesh.size) * exp.mesh.size

    @partial(jax.jit, static_argnames="grid", out_shardings=sharding.replicated(exp.mesh))
    def generate(
        params: Params, x0: Array | None, seed: Array, first: Array, grid: tuple[float, ...]
    ) -> tuple[Array, Array]:
        indices = lax.with_sharding_constraint(first + jnp.arange(batch_size), sharding.rows(exp.mesh))
        _, made = carried(exp, sample, params, x0, sample_keys(seed, indices), indices, grid, edit)
        return made.x, made.nfe

    def batch(params: Params, seed: int, first: int, grid: Grid) -> tuple[Array, Array]:
        x0 = given_source(exp, seed, first, batch_size)
        return generate(params, x0, seed, first, grid=tuple(map(float, grid)))

    return Program(batch, batch_size, description(sample), edit)


def carried(
    exp: Experiment,
    sample: Sampler,
    params: Params,
    x0: Array | None,
    keys: Keys,
    indices: Int[Array | np.ndarray, " b"],
    grid: Sequence[float],
    edit: Edit | None = None,
) -> tuple[Array, Samples]:
    """The source of the samples with these keys and indices, and what a sampler makes of it along the grid."""
    x0 = noise(exp, keys) if x0 is None else x0
    start = exp.interpolant.start(x0, grid[0]) if edit is None else noised(exp, x0, edit)
    roles = experiment.roles_for_sampling(exp, params)
    return x0, sample(roles, start, np.asarray(grid), rows.fold(keys, 1), condition(exp, indices))


def description(sampler: Sampler) -> str:
    """A sampler in words, such as "composed" or "diagonal(euler)": its function, and the plain values bound to it."""
    bound = [str(a) for a in getattr(sampler, "args", ()) if isinstance(a, str | int | float)]
    name = getattr(sampler, "func", sampler).__name__
    return f"{name}({', '.join(bound)})" if bound else name


def together(batches: Iterable[Float[np.ndarray, "_ *d"]]) -> Float[np.ndarray, "n *d"]:
    """All samples of some batches."""
    return np.concatenate(list(batches))


def samples(
    exp: Experiment,
    made: Program,
    params: Params,
    *,
    steps: int,
    seed: int,
    num_samples: int,
    keep: Callable[[Iterable[np.ndarray]], Any] = together,
) -> Generated:
    """The samples 0, ..., num_samples - 1 of a seed after `steps` steps, or where there is an edit those of them that
    come after its time; what a last batch has beyond them is cut. They come in batches, of which `keep` makes what is
    kept: by default all samples.

    Raises UsageError where a solver gave up.
    """
    grid = time_grid(exp, steps, None if made.edit is None else made.edit.time)
    counts, seconds = [], []

    def batches() -> Iterator[np.ndarray]:
        for first in range(0, num_samples, made.batch_size):
            start = time.perf_counter()
            x, nfe = made.batch(params, seed, first, grid)
            counts.append(int(nfe))
            if counts[-1] == solvers.GAVE_UP:
                raise UsageError(f"{made.sampler} did not reach its tolerance: raise its rtol, atol or max_steps")
            x = np.asarray(x)[: num_samples - first]
            seconds.append(time.perf_counter() - start)
            yield x

    return Generated(keep(batches()), labels(exp, num_samples), max(counts), sum(seconds))


def trajectories(
    exp: Experiment, params: Mapping[int, Params], *, seed: int, num_samples: int
) -> Iterator[tuple[int, Float[np.ndarray, "_ n *d"]]]:
    """For each step count and the student's parameters for it, the states of the first samples at all times of the
    grid, by the run's own sampler."""
    sample, indices = make_sampler(exp), np.arange(num_samples)

    @partial(jax.jit, static_argnames="grid", out_shardings=sharding.replicated(exp.mesh))
    def states(params: Params, x0: Array | None, grid: tuple[float, ...]) -> Array:
        return carried(exp, sample, params, x0, sample_keys(seed, indices), indices, grid)[1].path

    x0 = given_source(exp, seed, 0, num_samples)
    for steps in sorted(params):
        yield steps, np.asarray(states(params[steps], x0, grid=tuple(map(float, time_grid(exp, steps)))))
