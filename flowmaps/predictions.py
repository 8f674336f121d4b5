"""What a network's output means: from the raw output to the average velocity v_{s,t}.

A prediction turns the output into the ends E[x0 | x_s] and E[x1 | x_s] of the path; held from s to t they give

    v_{s,t} = (alpha(t) - alpha(s)) / (t - s) E[x1 | x_s] + (beta(t) - beta(s)) / (t - s) E[x0 | x_s]

(DDIM's step), whose diagonal is b_s, without a division by t - s. With q^2 = alpha^2 data_std^2 + beta^2 source_std^2,
the variance of x_s, the network is fed x / q, so that it sees numbers of order one at every noise level.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Float

from flowmaps import lookup
from flowmaps.errors import UsageError
from flowmaps.interpolants import Ends, Interpolant
from flowmaps.rows import expand
from flowmaps.types import Array, Cond, Keys, Velocity

Points = Float[Array, "b *d"]
Times = Float[Array, " b"]
Prediction = Callable[[Velocity], Velocity]
"""The raw network as a function -> the velocity that it stands for."""
ToEnds = Callable[[Points, Any, Times], Ends]
"""(x at s, raw output or all of them, s) -> the ends."""


def velocity(*, interpolant: Interpolant) -> Prediction:
    """The output is v_{s,t}, and the network is fed x as it is."""
    return lambda raw: raw


def data(*, interpolant: Interpolant, data_std: float = 0.5, clip: float = 0.0) -> Prediction:
    """The output is E[x1 | x_s]. Singular where beta = 0, unless beta counts as no less than `clip` where it divides:
    the noise's share of the velocity is then too small there (pixel MeanFlow, arXiv:2601.22158, divides both the
    velocity and its target by no less than 0.05)."""

    def ends(x: Points, raw: Points, s: Times) -> Ends:
        a, b = (expand(c.value(s), x) for c in (interpolant.alpha, interpolant.beta))
        return Ends((x - a * raw) / jnp.maximum(b, clip), raw)

    return from_ends(interpolant, data_std, ends)


def noise(*, interpolant: Interpolant, data_std: float = 0.5) -> Prediction:
    """The output is E[x0 | x_s] (epsilon-prediction, arXiv:2006.11239). Singular where alpha = 0."""
    return from_ends(interpolant, data_std, lambda x, raw, s: interpolant.ends_from_noise(x, raw, s))


def score(*, interpolant: Interpolant, data_std: float = 0.5) -> Prediction:
    """The output / (beta source_std) is grad log p_s(x) (arXiv:2006.09011, arXiv:2011.13456). Singular at alpha = 0."""
    source_std = interpolant.source_std
    return from_ends(interpolant, data_std, lambda x, raw, s: interpolant.ends_from_noise(x, -source_std * raw, s))


def v(*, interpolant: Interpolant, data_std: float = 0.5) -> Prediction:
    """The output is alpha E[x0 | x_s] - beta E[x1 | x_s] (arXiv:2202.00512, appendix D, on any path)."""

    def ends(x: Points, raw: Points, s: Times) -> Ends:
        a, b = (expand(c.value(s), x) for c in (interpolant.alpha, interpolant.beta))
        return Ends((b * x + a * raw) / (a**2 + b**2), (a * x - b * raw) / (a**2 + b**2))

    return from_ends(interpolant, data_std, ends)


def both(*, interpolant: Interpolant, data_std: float = 0.5) -> Prediction:
    """Two outputs, E[x1 | x_s] and E[x0 | x_s], each trusted where it is regular (arXiv:2202.00512, appendix D):

    E[x1 | x] = (beta^2 first + alpha (x - beta second)) / (alpha^2 + beta^2), the data of a mean of the two.
    """

    def ends(x: Points, raw: tuple[Points, Points], s: Times) -> Ends:
        a, b = (expand(c.value(s), x) for c in (interpolant.alpha, interpolant.beta))
        data, noise = raw
        total = a**2 + b**2
        return Ends((b * (x - a * data) + a**2 * noise) / total, (b**2 * data + a * (x - b * noise)) / total)

    return lambda raw: from_ends(interpolant, data_std, ends)(raw.heads)


def edm(*, interpolant: Interpolant, data_std: float = 0.5) -> Prediction:
    """The output is F of D(x) = c_skip x + c_out F(c_in x) (Karras et al. 2022, arXiv:2206.00364, eq. 7), on any path:

    E[x1 | x] = (alpha data_std^2 x + beta data_std source_std q F) / q^2, regular also at alpha = 0 and beta = 0.
    """
    source_std = interpolant.source_std

    def ends(x: Points, raw: Points, s: Times) -> Ends:
        a, b = (expand(c.value(s), x) for c in (interpolant.alpha, interpolant.beta))
        share, width = x / (a**2 * data_std**2 + b**2 * source_std**2), spread(interpolant, data_std, s, x)
        turn = data_std * source_std * raw / width
        return Ends(b * source_std**2 * share - a * turn, a * data_std**2 * share + b * turn)

    return from_ends(interpolant, data_std, ends)


def consistency(*, interpolant: Interpolant, data_std: float = 0.5) -> Prediction:
    """The output is F of f(x) = c_skip x + c_out F(c_in x) with f the identity at the path's last noise level eps (Song
    et al. 2023, arXiv:2303.01469, appendix C): for y = x / alpha of level sigma,

        c_skip = data_std^2 / ((sigma - eps)^2 + data_std^2)
        c_out = data_std (sigma - eps) / sqrt(sigma^2 + data_std^2)

    are X_{s,t_max}'s, and between other times the ends that make it are held. With eps = 0 it is `edm`. Singular at
    alpha = 0.
    """

    def ends(x: Points, raw: Points, s: Times) -> Ends:
        y, sigma = x / expand(interpolant.alpha.value(s), x), expand(interpolant.sigma(s), x)
        rest = sigma - expand(interpolant.sigma(jnp.full_like(s, interpolant.t_max)), x)
        turn = data_std * raw / jnp.sqrt(sigma**2 + data_std**2) - rest * y / (rest**2 + data_std**2)
        return Ends(-interpolant.source_std * turn, y + sigma * turn)

    return from_ends(interpolant, data_std, ends)


def two_clocks(*, interpolant: Interpolant) -> Prediction:
    """The output is v_{s,t}, asked of a network of one time: v_{s,s} at 2 - s, and v_{s,t} for s < t at s (FACM's
    expanded time interval, arXiv:2507.03738). So it knows one end beside the diagonal: the path's."""

    def clock(x: Points, s: Times, t: Times, cond: Cond) -> tuple[Points, Times, Times, Cond]:
        time = jnp.where(s == t, 2 - s, s)
        return x, time, time, cond

    return around(clock, lambda out, cond: out)


def scaled(*, interpolant: Interpolant) -> Prediction:
    """The output times the row's guidance is v_{s,t} (the scale parameter of Terminal Velocity Matching,
    arXiv:2511.19797): guided velocities grow with the scale, and the network need not."""

    def times_guidance(out: Points, cond: Cond) -> Points:
        return expand(cond["guidance"], out) * out if "guidance" in cond else out

    return around(lambda *inputs: inputs, times_guidance)


def around(before: Callable, after: Callable[[Points, Cond], Points]) -> Prediction:
    """The network on other inputs (x, s, t, cond), and each of its outputs changed."""

    def wrap(raw: Velocity) -> Velocity:
        def velocity(x: Points, s: Times, t: Times, cond: Cond, *, dropout: Keys | None = None) -> Points:
            return after(raw(*before(x, s, t, cond), dropout=dropout), cond)

        def heads(x: Points, s: Times, t: Times, cond: Cond, *, dropout: Keys | None = None) -> tuple[Points, ...]:
            return tuple(after(out, cond) for out in raw.heads(*before(x, s, t, cond), dropout=dropout))

        velocity.heads = heads
        return velocity

    return wrap


def from_ends(interpolant: Interpolant, data_std: float, ends: ToEnds) -> Prediction:
    """The velocity of the ends, held from s to t; of each head where the network has several."""

    def wrap(raw: Velocity) -> Velocity:
        def average(x: Points, s: Times, t: Times, cond: Cond, *, dropout: Keys | None = None) -> Points:
            output = raw(x / spread(interpolant, data_std, s, x), s, t, cond, dropout=dropout)
            return interpolant.chord(*ends(x, output, s), s, t)

        def heads(x: Points, s: Times, t: Times, cond: Cond, *, dropout: Keys | None = None) -> tuple[Points, ...]:
            first, *others = raw.heads(x / spread(interpolant, data_std, s, x), s, t, cond, dropout=dropout)
            velocities = (interpolant.velocity(*ends(x, other, s), s) for other in others)
            return interpolant.chord(*ends(x, first, s), s, t), *velocities

        average.heads = heads
        return average

    return wrap


def on_another_path(velocity: Velocity, own: Interpolant, path: Interpolant) -> Velocity:
    """A velocity learned on the path `own` as one on `path`, both with Gaussian sources independent of the data: where
    the noise levels sigma are equal x / alpha has one law, and the ends are the same up to the sources' deviations.

    On the diagonal it is exact where `own` has the level; beyond its levels the nearest one is asked, with x scaled to
    the deviation that noise has there. Between two times the ends are held.
    """

    def deviation(interpolant: Interpolant, t: Times) -> Times:
        return (interpolant.alpha.value(t) ** 2 + (interpolant.source_std * interpolant.beta.value(t)) ** 2) ** 0.5

    def carried(x: Points, s: Times, t: Times, cond: Cond, *, dropout: Keys | None = None) -> Points:
        time = own.time_of_level(path.sigma(s) / own.source_std)
        there = expand(deviation(own, time) / deviation(path, s), x) * x
        noise, data = own.ends_from_velocity(there, velocity(there, time, time, cond, dropout=dropout), time)
        return path.chord(path.source_std / own.source_std * noise, data, s, t)

    return carried


def spread(interpolant: Interpolant, data_std: float, s: Times, x: Points) -> Float[Array, "b *ones"]:
    """q, the standard deviation of x_s."""
    a, b = interpolant.alpha.value(s), interpolant.beta.value(s)
    return expand((a**2 * data_std**2 + b**2 * interpolant.source_std**2) ** 0.5, x)


PREDICTIONS = {f.__name__: f for f in (velocity, data, noise, score, v, both, edm, consistency, two_clocks, scaled)}


def outputs(name: str) -> int:
    """How many outputs of the network a prediction reads."""
    return 2 if name == "both" else 1


def check_start(name: str, interpolant: Interpolant) -> None:
    """Raises UsageError where the prediction divides by an alpha that is 0 at the path's first time."""
    with jax.ensure_compile_time_eval():
        nothing = interpolant.alpha.value(jnp.asarray(interpolant.t_min)) == 0
    if name in ("noise", "score", "consistency") and nothing:
        raise UsageError(
            f"prediction {name!r} says nothing of the data at time {interpolant.t_min}, where this path has none: "
            "choose velocity, data, v or edm, or a path such as discrete or variance_preserving"
        )


def options(name: str) -> dict[str, Any]:
    """The options of a prediction found by name."""
    lookup.check_name("prediction", name, PREDICTIONS)
    return lookup.options(PREDICTIONS[name], ("interpolant",))


def make(name: str, *, interpolant: Interpolant, **chosen: Any) -> Prediction:
    """The prediction `name` of PREDICTIONS. Raises UsageError."""
    lookup.check_name("prediction", name, PREDICTIONS)
    return lookup.call(f"prediction {name}", PREDICTIONS[name], {"interpolant": interpolant}, chosen)
