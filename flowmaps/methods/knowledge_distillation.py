"""Knowledge distillation of a teacher's ODE (Luhman, Luhman 2021, arXiv:2101.02388):

    L = E d( X_{s,1}(x_s), x_1 ),

x_1 where the teacher takes the noise x_0, deterministically, and x_s a state of that way: x_0 itself, or one of several
at equal times. Pairs are stored (--mode=sample --config.sample.pairs) or made as they are needed. What a stochastic
teacher makes of one noise has a mean, which is a blur. Cost: 3F a row; online the teacher's steps beside it.
"""

from typing import Literal

from flowmaps import samplers
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms, _trajectories
from flowmaps.types import Method


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    pairs: Literal["stored", "online"] = "stored",
    points: int = 1,
    solver: Literal["ddim", "heun"] = "heun",
    solver_steps: int = 32,
    distance: _terms.Distance = "squared",
    huber: float = 0.00054,
) -> Method:
    """pairs: as stored, or by solver_steps of `solver` (solvers/steps.py) from the teacher. points: how many states of
    a way may be x_s; 1: the noise alone. distance, huber: see _terms.far. No label is dropped: x_1 has it.

    Raises UsageError for points that do not divide the steps, or a teacher that is not there (with the first batch).
    """
    trajectories = _trajectories.make(interpolant, pairs, points, solver, solver_steps)

    student_loss = _trajectories.to_the_end(trajectories, interpolant, points, distance, huber)
    sampler = samplers.make("one_step" if points == 1 else "renoising", interpolant=interpolant)
    source = {"pairs": True} if pairs == "stored" else {"teacher": "velocity"}
    owners = _terms.features_owner(distance == "perceptual")
    return Method({"student": student_loss}, sampler, owners, **source, diagonal=False, one_end=True)
