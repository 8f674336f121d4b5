"""Paths from source to data: the one place where the project's notation is defined.

    x_t = alpha(t) x1 + beta(t) x0,    x0 a sample of the source, x1 of the data, time from t_min to t_max.

alpha weighs the data, beta the source. With E = E[x1 | x_t] and N = E[x0 | x_t], the conversions between
predictions are the linear relations x = alpha E + beta N, velocity b = alpha' E + beta' N and, for a Gaussian source
of standard deviation `source_std`, score = -N / (beta source_std^2).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from flowmaps import lookup
from flowmaps.rows import expand
from flowmaps.types import Array

Times = Float[Array, "*b"]
Points = Float[Array, "b *d"]


class Schedule(NamedTuple):
    """A coefficient of a path as a function of time [*b] -> [*b]."""

    value: Callable[[Times], Times]
    slope: Callable[[Times], Times]
    """The derivative."""
    difference: Callable[[Times, Times], Times]
    """The divided difference (value(t) - value(s)) / (t - s), exact at and near s = t."""


class Ends(NamedTuple):
    """The two ends of a path as seen from x_t: E[x0 | x_t] and E[x1 | x_t], or a sample of them."""

    noise: Points
    data: Points


class Interpolant(NamedTuple):
    """x_t = alpha(t) x1 + beta(t) x0 for t in [t_min, t_max]."""

    alpha: Schedule
    beta: Schedule
    t_min: float = 0.0
    t_max: float = 1.0
    source_std: float = 1.0
    num_steps: int | None = None
    """Of a chain, whose network knows no times between its own; None: all times are alike."""

    def point(self, x0: Points, x1: Points, t: Float[Array, " b"]) -> Points:
        """x_t."""
        return expand(self.alpha.value(t), x1) * x1 + expand(self.beta.value(t), x0) * x0

    def velocity(self, x0: Points, x1: Points, t: Float[Array, " b"]) -> Points:
        """dx_t/dt of the path between x0 and x1; with the conditional means in their place, b_t(x)."""
        return expand(self.alpha.slope(t), x1) * x1 + expand(self.beta.slope(t), x0) * x0

    def chord(self, x0: Points, x1: Points, s: Float[Array, " b"], t: Float[Array, " b"]) -> Points:
        """(x_t - x_s) / (t - s) of the path between x0 and x1, its average velocity; at s = t its velocity."""
        return expand(self.alpha.difference(s, t), x1) * x1 + expand(self.beta.difference(s, t), x0) * x0

    def start(self, x0: Points, t: float | None = None) -> Points:
        """The state at t, by default t_min, from which generation starts: x_t without its (small) share of data."""
        return self.beta.value(jnp.asarray(self.t_min if t is None else t, x0.dtype)) * x0

    def ends_from_velocity(self, x: Points, velocity: Points, t: Float[Array, " b"]) -> Ends:
        """The ends from b_t(x): solves the two linear relations."""
        _, _, da, db = self._coefficients(t)
        return self._ends(x, velocity, t, da, db)

    def ends_from_average(self, x: Points, average: Points, s: Float[Array, " b"], t: Float[Array, " b"]) -> Ends:
        """The ends which, held from s to t, make v_{s,t}(x): those of `chord`. Regular at and near s = t."""
        return self._ends(x, average, s, self.alpha.difference(s, t), self.beta.difference(s, t))

    def ends_from_data(self, x: Points, data: Points, t: Float[Array, " b"]) -> Ends:
        """The ends from E[x1 | x_t]. Singular where beta = 0."""
        a, b, _, _ = (expand(c, x) for c in self._coefficients(t))
        return Ends((x - a * data) / b, data)

    def ends_from_noise(self, x: Points, noise: Points, t: Float[Array, " b"]) -> Ends:
        """The ends from E[x0 | x_t]. Singular where alpha = 0."""
        a, b, _, _ = (expand(c, x) for c in self._coefficients(t))
        return Ends(noise, (x - b * noise) / a)

    def ends_from_score(self, x: Points, score: Points, t: Float[Array, " b"]) -> Ends:
        """The ends from grad log p_t(x), for a Gaussian source. Singular where alpha = 0."""
        return self.ends_from_noise(x, -expand(self.beta.value(t), x) * self.source_std**2 * score, t)

    def score(self, noise: Points, t: Float[Array, " b"]) -> Points:
        """grad log p_t(x) from E[x0 | x_t], for a Gaussian source. Singular where beta = 0."""
        return -noise / (expand(self.beta.value(t), noise) * self.source_std**2)

    def average_velocity(self, x: Points, data: Points, s: Float[Array, " b"], t: Float[Array, " b"]) -> Points:
        """v_{s,t}(x) of the map that holds a prediction `data` of x1 made at x_s = x (DDIM's step from s to t).

        Exact at and near s = t, also under jvp. Singular where beta(s) = 0.
        """
        return self.chord(self.ends_from_data(x, data, s).noise, data, s, t)

    def sigma(self, t: Times) -> Times:
        """source_std beta / alpha, the standard deviation of the noise in x_t / alpha: EDM's sigma."""
        return self.source_std * self.beta.value(t) / self.alpha.value(t)

    def log_level(self, t: Times) -> Times:
        """log(beta / alpha), the noise level at t: minus half the log-SNR. Infinite where alpha or beta is 0."""
        return jnp.log(self.beta.value(t)) - jnp.log(self.alpha.value(t))

    def level_fall(self, t: Times) -> Times:
        """-d/dt log_level = alpha' / alpha - beta' / beta: half the growth of the log-SNR, never negative."""
        a, b, da, db = self._coefficients(t)
        return da / a - db / b

    @partial(jax.jit, static_argnums=0)
    def time_of_level(self, level: Times) -> Times:
        """The time at which beta / alpha, which falls with time, has the given value: by bisection, to rounding;
        t_min or t_max where the path never has it."""
        low, high = jnp.full_like(level, self.t_min), jnp.full_like(level, self.t_max)

        def halve(_: Array, bracket: tuple[Array, Array]) -> tuple[Array, Array]:
            low, high = bracket
            middle = (low + high) / 2
            later = self.beta.value(middle) > level * self.alpha.value(middle)
            return jnp.where(later, middle, low), jnp.where(later, high, middle)

        return jax.lax.fori_loop(0, jnp.finfo(level.dtype).nmant + 2, halve, (low, high))[1]

    def _ends(self, x: Points, velocity: Points, s: Times, rise: Times, fall: Times) -> Ends:
        """Solves alpha E + beta N = x and rise E + fall N = velocity."""
        a, b, da, db = (expand(c, x) for c in (self.alpha.value(s), self.beta.value(s), rise, fall))
        determinant = da * b - db * a
        return Ends((da * x - a * velocity) / determinant, (b * velocity - db * x) / determinant)

    def _coefficients(self, t: Times) -> tuple[Times, Times, Times, Times]:
        return self.alpha.value(t), self.beta.value(t), self.alpha.slope(t), self.beta.slope(t)


def schedule(function: Callable[[Times], Times]) -> Schedule:
    """A user's smooth coefficient. Slope by differentiation; the divided difference is the mean slope over
    [s, t] by Gauss-Legendre quadrature with 16 nodes (exact for polynomials of degree 32)."""

    def slope(t: Times) -> Times:
        return jnp.vectorize(jax.grad(function))(t)

    def difference(s: Times, t: Times) -> Times:
        nodes, weights = np.polynomial.legendre.leggauss(16)
        slopes = (w / 2 * slope(s + (1 + u) / 2 * (t - s)) for u, w in zip(nodes, weights, strict=True))
        return sum(slopes)

    return Schedule(function, slope, difference)


def path(
    alpha: Callable[[Times], Times],
    beta: Callable[[Times], Times],
    *,
    t_min: float = 0.0,
    t_max: float = 1.0,
    source_std: float = 1.0,
) -> Interpolant:
    """A user's path from two smooth functions of time, applied elementwise."""
    return Interpolant(schedule(alpha), schedule(beta), t_min, t_max, source_std)


def linear(*, sigma_min: float = 0.0, source_std: float = 1.0) -> Interpolant:
    """x_t = t x1 + (1 - (1 - sigma_min) t) x0 (flow matching, arXiv:2210.02747, eq. 22; rectified flow)."""
    fall = 1 - sigma_min
    alpha = Schedule(lambda t: t, jnp.ones_like, lambda s, t: jnp.ones_like(s))
    beta = Schedule(lambda t: 1 - fall * t, lambda t: jnp.full_like(t, -fall), lambda s, t: jnp.full_like(s, -fall))
    return Interpolant(alpha, beta, source_std=source_std)


def trigonometric(*, source_std: float = 1.0) -> Interpolant:
    """x_t = sin(pi t / 2) x1 + cos(pi t / 2) x0 (variance preserving: the cosine schedule of arXiv:2202.00512, the
    trigonometric interpolant of arXiv:2209.15571, TrigFlow's path)."""
    half = jnp.pi / 2

    def chord(s: Times, t: Times) -> Times:  # 2 sin(half (t - s) / 2) / (t - s)
        return half * jnp.sinc((t - s) / 4)

    alpha = Schedule(
        lambda t: jnp.sin(half * t),
        lambda t: half * jnp.cos(half * t),
        lambda s, t: chord(s, t) * jnp.cos(half * (s + t) / 2),
    )
    beta = Schedule(
        lambda t: jnp.sin(half * (1 - t)),  # the cosine, and exactly 0 at t = 1
        lambda t: -half * jnp.sin(half * t),
        lambda s, t: -chord(s, t) * jnp.sin(half * (s + t) / 2),
    )
    return Interpolant(alpha, beta, source_std=source_std)


def variance_preserving(
    *, beta_min: float = 0.1, beta_max: float = 20.0, t_max: float = 0.999, source_std: float = 1.0
) -> Interpolant:
    """Song et al. 2021, arXiv:2011.13456, VP SDE with linear beta, its clock turned: u = 1 - t.

    alpha = exp(-B / 2), beta = sqrt(1 - exp(-B)), B(u) = beta_min u + (beta_max - beta_min) u^2 / 2. alpha(0) = 0.0066
    is not 0, and beta's slope is infinite at t = 1, so times end at t_max.
    """
    exponent = linear_exponent(beta_min, beta_max)
    return Interpolant(decay(exponent, 0.5), preserving(exponent), t_max=t_max, source_std=source_std)


def sub_variance_preserving(*, beta_min: float = 0.1, beta_max: float = 20.0, source_std: float = 1.0) -> Interpolant:
    """Song et al. 2021, sub-VP SDE: alpha = exp(-B / 2) as in VP; beta = 1 - exp(-B), a deviation, not a variance."""
    exponent = linear_exponent(beta_min, beta_max)
    squared = decay(exponent, 1.0)
    beta = Schedule(
        lambda t: -jnp.expm1(-exponent.value(t)),
        lambda t: -squared.slope(t),
        lambda s, t: -squared.difference(s, t),
    )
    return Interpolant(decay(exponent, 0.5), beta, source_std=source_std)


def discrete(
    *, num_steps: int = 1000, beta_first: float = 1e-4, beta_last: float = 0.02, source_std: float = 1.0
) -> Interpolant:
    """DDPM's chain (Ho et al. 2020, arXiv:2006.11239): alpha^2 = prod_{i <= n} (1 - beta_i) at t = 1 - n / num_steps,
    the variances beta_i in equal steps from beta_first to beta_last; between these times log alpha is linear.

    beta's slope is infinite at t = 1, where n = 0 and x_t is the data.
    """
    betas = np.linspace(beta_first, beta_last, num_steps, dtype=np.float64)
    exponent = polyline(-np.concatenate([[0.0], np.cumsum(np.log1p(-betas))])[::-1])
    return Interpolant(decay(exponent, 0.5), preserving(exponent), source_std=source_std, num_steps=num_steps)


def variance_exploding(
    *, sigma_min: float = 0.002, sigma_max: float = 80.0, rho: int = 7, source_std: float = 1.0
) -> Interpolant:
    """x_t = x1 + sigma(t) x0 with Karras' levels (EDM, arXiv:2206.00364, eq. 5) as the clock:

    sigma(t) = (sigma_max^(1/rho) + t (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho, an integer rho >= 1.
    """
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)

    def root(t: Times) -> Times:
        return high + t * (low - high)

    def difference(s: Times, t: Times) -> Times:  # of u^rho, by u^rho - w^rho = (u - w) sum of products
        u, w = root(s), root(t)
        return (low - high) * sum(u**i * w ** (rho - 1 - i) for i in range(rho))

    alpha = Schedule(jnp.ones_like, jnp.zeros_like, lambda s, t: jnp.zeros_like(s))
    beta = Schedule(lambda t: root(t) ** rho, lambda t: rho * (low - high) * root(t) ** (rho - 1), difference)
    return Interpolant(alpha, beta, source_std=source_std)


def geometric(*, sigma_min: float = 0.01, sigma_max: float = 50.0, source_std: float = 1.0) -> Interpolant:
    """x_t = x1 + sigma(t) x0, sigma = sigma_max (sigma_min / sigma_max)^t: the VE SDE of arXiv:2011.13456 and NCSN's
    levels, equal steps of which are a geometric sequence."""
    alpha = Schedule(jnp.ones_like, jnp.zeros_like, lambda s, t: jnp.zeros_like(s))
    log_max, fall = np.log(sigma_max), np.log(sigma_max / sigma_min)
    exponent = Schedule(
        lambda t: fall * t - log_max, lambda t: jnp.full_like(t, fall), lambda s, t: jnp.full_like(s, fall)
    )
    return Interpolant(alpha, decay(exponent, 1.0), source_std=source_std)


def linear_exponent(beta_min: float, beta_max: float) -> Schedule:
    """B(u) = beta_min u + (beta_max - beta_min) u^2 / 2 at u = 1 - t."""
    rise = beta_max - beta_min
    return Schedule(
        lambda t: beta_min * (1 - t) + rise * (1 - t) ** 2 / 2,
        lambda t: -beta_min - rise * (1 - t),
        lambda s, t: -beta_min - rise * (2 - s - t) / 2,
    )


SAME = 2e-4
"""Of a polyline's piece: a time so near to a knot is that knot up to float32's rounding."""


def polyline(values: Float[np.ndarray, " k"]) -> Schedule:
    """The function with the given values at k equally spaced times of [0, 1], linear between them."""
    count = len(values) - 1

    def piece(t: Times) -> tuple[Times, Times]:  # value and slope; at a knot the slope to its right
        knots, slopes = jnp.asarray(values, t.dtype), jnp.asarray(np.diff(values) * count, t.dtype)
        left = jnp.clip(jnp.floor(t * count + SAME), 0, count - 1)
        share = t * count - left
        share = jnp.where(share < SAME, 0, jnp.where(share > 1 - SAME, 1, share))
        index = left.astype(jnp.int32)
        return (1 - share) * knots[index] + share * knots[index + 1], slopes[index]

    def difference(s: Times, t: Times) -> Times:
        (at_s, slope), (at_t, _) = piece(s), piece(t)
        near = jnp.abs(t - s) * count < 1e-3
        return jnp.where(near, slope, (at_t - at_s) / jnp.where(near, 1.0, t - s))

    return Schedule(lambda t: piece(t)[0], lambda t: piece(t)[1], difference)


def decay(exponent: Schedule, scale: float) -> Schedule:
    """exp(-scale B)."""

    def value(t: Times) -> Times:
        return jnp.exp(-scale * exponent.value(t))

    def difference(s: Times, t: Times) -> Times:
        slope = -scale * exponent.difference(s, t)
        return value(s) * slope * relative_expm1(slope * (t - s))

    return Schedule(value, lambda t: -scale * exponent.slope(t) * value(t), difference)


def preserving(exponent: Schedule) -> Schedule:
    """sqrt(1 - exp(-B)), which keeps the variance at 1 beside alpha = exp(-B / 2)."""
    squared = decay(exponent, 1.0)  # alpha^2, of which beta^2 is the complement to 1

    def value(t: Times) -> Times:
        return jnp.sqrt(-jnp.expm1(-exponent.value(t)))

    return Schedule(
        value,
        lambda t: -squared.slope(t) / (2 * value(t)),
        lambda s, t: -squared.difference(s, t) / (value(s) + value(t)),
    )


def relative_expm1(x: Times) -> Times:
    """(exp(x) - 1) / x, 1 at x = 0; by its series for small x, where the quotient loses digits under jvp."""
    small = jnp.abs(x) < 0.1
    safe = jnp.where(small, 1.0, x)
    series = jnp.polyval(jnp.asarray([1 / float(np.prod(np.arange(1, n + 2))) for n in range(9, -1, -1)]), x)
    return jnp.where(small, series, jnp.expm1(safe) / safe)


PATHS = {
    f.__name__: f
    for f in (
        linear,
        trigonometric,
        variance_preserving,
        sub_variance_preserving,
        discrete,
        variance_exploding,
        geometric,
    )
}


def options(name: str) -> dict[str, Any]:
    """The options of a path found by name; `source_std` is the coupling's."""
    lookup.check_name("interpolant", name, PATHS)
    return lookup.options(PATHS[name], ("source_std",))


def make(name: str, *, source_std: float = 1.0, **chosen: Any) -> Interpolant:
    """The path `name` of PATHS. Raises UsageError."""
    lookup.check_name("interpolant", name, PATHS)
    return lookup.call(f"interpolant {name}", PATHS[name], {"source_std": source_std}, chosen)
