"""Consistency mid-training (CMT, Hu et al. 2025, arXiv:2509.24526): between a diffusion model and a few-step one. On a
teacher's trajectories x_0, ..., x_1 from noise, at equal times s < t of the path's clock,

    end   d( X_{s,1}(x_s), x_1 )                       before a consistency model (consistency, continuous_consistency)
    all   |v_st(x_s) - (x_t - x_s) / (t - s)|^2        before a model of all maps (mean_flow, lsd, ...)

with fixed targets: no average, no schedule, nothing to stop. The next run starts from this one (config.init_from).
Cost: 3F a row; online the teacher's steps beside it.
"""

from typing import Literal

import jax.numpy as jnp

from flowmaps import rows, samplers, times
from flowmaps.errors import UsageError
from flowmaps.interpolants import Interpolant
from flowmaps.methods import _terms, _trajectories
from flowmaps.rows import expand
from flowmaps.types import Array, Batch, Keys, Loss, Method, Roles
from flowmaps.weightings import squared


def make(
    *,
    interpolant: Interpolant,
    total_steps: int,
    maps: Literal["end", "all"] = "end",
    pairs: Literal["stored", "online"] = "stored",
    points: int = 16,
    solver: Literal["ddim", "heun"] = "heun",
    solver_steps: int = 16,
    distance: _terms.Distance = "squared",
    huber: float = 0.00054,
) -> Method:
    """maps: as above. pairs: trajectories as stored, or by solver_steps of `solver` (solvers/steps.py) from the
    teacher. points: times of a trajectory after the first. distance, huber: of "end", see _terms.far.

    Raises UsageError for points that do not divide the steps, images compared where maps do not end at them, or a
    teacher that is not there (with the first batch).
    """
    if maps == "all" and distance == "perceptual":
        raise UsageError(
            "method.distance='perceptual' compares images, at which not all maps end: set method.maps='end'"
        )
    trajectories = _trajectories.make(interpolant, pairs, points, solver, solver_steps)

    def between(roles: Roles, batch: Batch, keys: Keys, step: Array) -> Loss:
        cond = rows.condition(batch)
        states = trajectories(roles, batch, cond)
        first = _trajectories.drawn(rows.fold(keys, 0), 0, points)
        last = _trajectories.drawn(rows.fold(keys, 1), first + 1, points + 1)
        x_s, x_t = (_trajectories.at(states, index) for index in (first, last))
        s, t = (times.at_index(interpolant, index, points) for index in (first, last))
        average = roles.student(x_s, s, t, cond, dropout=rows.fold(keys, 2))
        far = squared(average - (x_t - x_s) / expand(t - s, x_s))
        return Loss(far, {"map": jnp.mean(far)})

    to_the_end = _trajectories.to_the_end(trajectories, interpolant, points, distance, huber)
    student_loss = {"end": to_the_end, "all": between}[maps]
    sampler = samplers.make("renoising" if maps == "end" else "composed", interpolant=interpolant)
    source = {"pairs": True} if pairs == "stored" else {"teacher": "velocity"}
    owners = _terms.features_owner(distance == "perceptual")
    return Method({"student": student_loss}, sampler, owners, **source, diagonal=False, one_end=maps == "end")
