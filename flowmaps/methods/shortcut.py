"""Shortcut models (Frans et al. 2024, arXiv:2410.12557). The paper's s(x, t, d) is v_{t,t+d}(x).

    flow        |v_ss(x_s) - dx_s/ds|^2
    base        |v_{s,s+2/M}(x_s) - sg 1/2 [v_ss(x_s) + v_uu(x_s + v_ss(x_s) / M)]|^2,           u = s + 1/M
    bootstrap   |v_{s,s+d}(x_s) - sg 1/2 [v_{s,u}(x_s) + v_{u,s+d}(X_{s,u}(x_s))]|^2,            u = s + d/2

for the steps d = 1, 1/2, ..., 4/M on a grid of M = 2^levels times: the semigroup at its midpoint, with the legs of a
moving average. Its fixed point is M Euler steps of the diagonal. Cost: 3F a flow row, 5F another (7F guided).
"""

from typing import Literal

import jax.numpy as jnp
from jax.lax import stop_gradient

from flowmaps import rows, samplers, times
from flowmaps.errors import UsageError
from flowmaps.guidance import ClassifierFree
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.rows import expand
from flowmaps.types import Array, Batch, Cond, Keys, Loss, Method, Roles, Velocity
from flowmaps.weightings import squared

BASE_SHARE = 1 / 8
"""Of the bootstrapped rows, those at the smallest step (1 / levels in the paper; here a share into which batches of a
power of 2 can be dealt). Dealt by static size, so that guidance costs only there."""


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    bootstrap_fraction: float = 0.25,
    levels: int = 7,
    smallest: Literal["instantaneous", "released"] = "instantaneous",
    flow_times: Literal["uniform", "grid"] = "uniform",
    clip: float = float("inf"),
    guidance_scale: float = 1.0,
    label_dropout: float = 0.0,
    target_decay: float = 0.999,
) -> Method:
    """The paper's options first, the released code's in brackets.

    bootstrap_fraction: share of the batch that is bootstrapped, 1/4 [1/8]. smallest: the flow term trains, and the
    smallest leg asks for, v_{s,s} [v_{s,s+1/M}, "released"]. flow_times: uniform [multiples of 1/M, "grid"]. clip: of
    the transported state and of the target, none [4]. guidance_scale: classifier-free guidance in the legs of the base
    step, from which the larger steps inherit it. label_dropout: on flow rows alone. target_decay: of the average.
    Raises UsageError for an interpolant with other ends than 0 and 1, less than 2 levels, or guidance without dropout.
    """
    if (interpolant.t_min, interpolant.t_max) != (0.0, 1.0):
        raise UsageError(f"shortcut needs times on [0, 1], not [{interpolant.t_min}, {interpolant.t_max}]")
    if levels < 2:
        raise UsageError(f"shortcut needs method.levels of at least 2, not {levels}")
    if guidance_scale != 1 and label_dropout == 0:
        raise UsageError(f"method.guidance_scale={guidance_scale} needs method.label_dropout above 0, for example 0.1")
    shortest = 0.5**levels
    query = shortest if smallest == "released" else 0.0
    base_share = BASE_SHARE * bootstrap_fraction
    shares = (1 - bootstrap_fraction, base_share, bootstrap_fraction - base_share)
    flow_law = times.uniform() if flow_times == "uniform" else times.multiples(2**levels)
    base_law = times.multiples(2 ** (levels - 1))
    steps_law = times.dyadic(levels - 1)

    def two_legs(leg: Velocity, x, s, t, cond: Cond, dropout: Keys):
        u = (s + t) / 2
        first = leg(x, s, u, cond, dropout=dropout)
        middle = jnp.clip(x + expand(u - s, x) * first, -clip, clip)
        return jnp.clip((first + leg(middle, u, t, cond, dropout=dropout)) / 2, -clip, clip)

    def bootstrap_residual(student: Velocity, leg: Velocity, batch: Batch, s, t, cond: Cond, dropout: Keys):
        x = interpolant.point(batch["x0"], batch["x1"], s)
        legs = stop_gradient(two_legs(leg, x, s, t, cond, dropout))
        return student(x, s, t, cond, dropout=dropout) - legs

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        parts = rows.split((batch, rows.condition(batch), keys), shares)
        (flow_batch, cond, flow_keys), (base_batch, base_cond, base_keys), (rest, rest_cond, rest_keys) = parts

        s = flow_law(rows.fold(flow_keys, 1))
        cond = _terms.drop_labels(cond, rows.fold(flow_keys, 0), label_dropout)
        x, velocity = _terms.path_point(interpolant, flow_batch, s)
        flow = roles.student(x, s, s + query, cond, dropout=rows.fold(flow_keys, 2)) - velocity

        def shortest_leg(x, s, t, cond, *, dropout=None):
            return roles.target(x, s, s + query, cond, dropout=dropout)

        guided = shortest_leg if guidance_scale == 1 else ClassifierFree(shortest_leg, guidance_scale)
        s = base_law(rows.fold(base_keys, 1))
        end, dropout = s + 2 * shortest, rows.fold(base_keys, 2)
        base = bootstrap_residual(roles.student, guided, base_batch, s, end, base_cond, dropout)

        s, t = steps_law(rows.fold(rest_keys, 1))
        dropout = rows.fold(rest_keys, 2)
        bootstrap = bootstrap_residual(roles.student, roles.target, rest, s, t, rest_cond, dropout)

        terms = {"flow": squared(flow), "base": squared(base), "bootstrap": squared(bootstrap)}
        return _terms.loss(terms, shares, shares)

    return Method({"student": student_loss}, samplers.composed, target_decay=lambda step: target_decay)
