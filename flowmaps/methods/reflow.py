"""Reflow: the next rectified flow (Liu et al. 2023, arXiv:2209.03003). On pairs of noise and where the flow before took
it (coupling `stored`),

    L = E |v_tt(x_t) - dx_t/dt|^2,    x_t on the path between x_0 and its x_1,

flow matching whose paths no longer cross: on the linear path velocities tend to be straight, and Euler's one step to be
exact. Each round's run makes the next one's pairs. The last one may be distilled: times 0, 1/k, ..., (k - 1)/k alone
(law ("multiples", k)), at which k Euler steps ask. A share of real data, each with noise of its own, keeps rounds from
drifting away from them. Cost: 3F a row.
"""

import jax.numpy as jnp
from jaxtyping import Float

from flowmaps import rows, samplers, times, weightings
from flowmaps.errors import UsageError
from flowmaps.identities import tangent
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles
from flowmaps.weightings import squared

Row = Float[Array, " b"]


def with_real(interpolant: Interpolant, batch: Batch, keys: Keys) -> Batch:
    """The real examples of a batch in place of its pairs, with new noise. Raises UsageError where it brings none."""
    if "real" not in batch:
        raise UsageError("method.real_share needs the data beside the pairs: set coupling.real=True")
    noise = interpolant.source_std * rows.normal(keys, batch["real"].shape[1:])
    labels = {"label": batch["real_label"]} if "real_label" in batch else {}
    return {"x0": noise.astype(batch["real"].dtype), "x1": batch["real"], **labels}


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    law: tuple = ("uniform",),
    real_share: float = 0.0,
    distance: _terms.Distance = "squared",
    huber: float = 0.00054,
    label_dropout: float = 0.0,
) -> Method:
    """law: of t, see times.on_path. real_share: of the rows that are real data. distance, huber: of velocities, see
    weightings.distance, or "perceptual", of the data that they tell, see _terms.far: the paper's where the last round
    is distilled to one step. label_dropout: share of labels hidden, for guidance.

    Raises UsageError for real data that the coupling does not bring (with the first batch).
    """
    draw = times.on_path(interpolant, *law)
    shares = (1 - real_share, real_share)

    def term(roles: Roles, batch: Batch, keys: Keys) -> tuple[Row, Row]:
        """The distance, and the squared one of velocities."""
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        t, dropout = draw(rows.fold(keys, 1)), rows.fold(keys, 2)
        x, velocity = _terms.path_point(interpolant, batch, t)
        residual = tangent(roles.student, x, t, velocity, cond, dropout)
        if distance != "perceptual":
            return weightings.distance(residual, distance, huber), squared(residual)
        told = interpolant.ends_from_velocity(x, velocity + residual, t).data
        return _terms.far(roles, told, batch["x1"], distance, huber), squared(residual)

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        if not real_share:
            far, raw = term(roles, batch, keys)
            return Loss(far, {"flow": jnp.mean(raw)})
        (pairs, pair_keys), (real, real_keys) = rows.split((batch, keys), shares)
        far, raw = term(roles, pairs, pair_keys)
        far_real, raw_real = term(roles, with_real(interpolant, real, rows.fold(real_keys, 3)), real_keys)
        terms = {"flow": far, "real": far_real}
        return _terms.loss(terms, shares, shares, {"flow": raw, "real": raw_real})

    euler = samplers.make("diagonal", interpolant=interpolant)
    owners = _terms.features_owner(distance == "perceptual")
    return Method({"student": student_loss}, euler, owners, diagonal_only=True, pairs=True)
