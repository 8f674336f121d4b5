"""Flow matching (Lipman et al. 2023, arXiv:2210.02747; on the linear path rectified flow, arXiv:2209.03003; with the
coupling of minibatch optimal transport OT-CFM, arXiv:2302.00482).

    L = E |v_tt(x_t) - dx_t/dt|^2,    whose minimiser is b_t(x) = E[dx_t/dt | x_t = x].

Only the diagonal is learned, so samples come from a solver of the ODE, not from the map. Cost: 3F a row (F: a forward
pass of the network). With a latent beside the two ends it is `stochastic_interpolant`.
"""

import jax.numpy as jnp

from flowmaps import rows, samplers, times
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles
from flowmaps.weightings import squared


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    law: tuple = ("uniform",),
    label_dropout: float = 0.0,
) -> Method:
    """law: of t, see times.on_path. label_dropout: share of labels hidden, for guidance."""
    draw = times.on_path(interpolant, *law)

    def student_loss(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = _terms.drop_labels(rows.condition(batch), rows.fold(keys, 0), label_dropout)
        t = draw(rows.fold(keys, 1))
        flow = squared(_terms.flow_residual(roles.student, interpolant, batch, t, cond, rows.fold(keys, 2)))
        return Loss(flow, {"flow": jnp.mean(flow)})

    return Method({"student": student_loss}, samplers.make("diagonal", interpolant=interpolant), diagonal_only=True)
