"""Flow matching (Lipman et al. 2023, arXiv:2210.02747; on the linear path rectified flow, arXiv:2209.03003).

    L = E |v_tt(x_t) - dx_t/dt|^2,    whose minimiser is b_t(x) = E[dx_t/dt | x_t = x].

A latent widens the path to x_t + gamma(t) z, z ~ N(0, I), and adds gamma'(t) z to its velocity: "constant", gamma =
sigma (I-CFM, arXiv:2302.00482), or "bridge", gamma = sigma sqrt(t (1 - t)), which with the entropic coupling of
regularization 2 sigma^2 is the Schroedinger bridge's flow (SB-CFM, ibid.; arXiv:2303.08797 for any gamma).

Only the diagonal is learned, so samples come from a solver of the ODE, not from the map. Cost: 3F a row (F: a forward
pass of the network).
"""

from typing import Literal

import jax.numpy as jnp

from flowmaps import rows, samplers, times
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.rows import expand
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles
from flowmaps.weightings import squared

NEAREST = 1e-3
"""To 0 and 1, of a bridge's times: at the ends its latent's velocity is infinite."""


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    law: tuple = ("uniform",),
    latent: Literal["none", "constant", "bridge"] = "none",
    sigma: float = 0.1,
    label_dropout: float = 0.0,
) -> Method:
    """law: of t, see times.on_path. sigma: of the latent. label_dropout: share of labels hidden, for guidance."""
    draw = times.on_path(interpolant, *law)

    def widened(point: _terms.PathPoint, t: Array, keys: Keys) -> _terms.PathPoint:
        """x_t + gamma z and its velocity."""
        if latent == "none":
            return point
        z = sigma * rows.normal(keys, point.x.shape[1:]).astype(point.x.dtype)
        if latent == "constant":
            return point._replace(x=point.x + z)
        width = jnp.sqrt(t * (1 - t))
        x = point.x + expand(width, z) * z
        return _terms.PathPoint(x, point.velocity + expand((1 - 2 * t) / (2 * width), z) * z)

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(_terms.condition(batch), rows.fold(keys, 0), label_dropout)
        t = draw(rows.fold(keys, 1))
        if latent == "bridge":
            t = jnp.clip(t, NEAREST, 1 - NEAREST)
        x, velocity = widened(_terms.path_point(interpolant, batch, t), t, rows.fold(keys, 3))
        flow = squared(roles.student(x, t, t, cond, dropout=rows.fold(keys, 2)) - velocity)
        return Loss(flow, {"flow": jnp.mean(flow)})

    return Method({"student": student_loss}, samplers.make("diagonal", interpolant=interpolant), diagonal_only=True)
