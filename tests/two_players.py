"""A method of two players that learn from each other, for tests, which put it in the place of `methods.load`.

The critic learns the velocity, and what the student says of it; the student the velocity, and what the critic says.
"""

from flowmaps import rows, samplers, times
from flowmaps.methods import _terms
from flowmaps.types import Loss, Method
from flowmaps.weightings import squared


def make(*, interpolant, total_steps, period: int = 5, from_teacher: bool = False) -> Method:
    """period: of the critic. from_teacher: whether that starts as the teacher, or has a network of its own."""
    draw = times.on_path(interpolant, "uniform")

    def towards(mine, other):
        def loss(roles, batch, keys, step):
            velocities = {"student": roles.student, **roles.extras}
            t, cond = draw(keys), rows.condition(batch)
            point = _terms.path_point(interpolant, batch, t)
            said = velocities[mine](point.x, t, t, cond)
            flow, gap = squared(said - point.velocity), squared(said - velocities[other](point.x, t, t, cond))
            return Loss(flow + gap, {"flow": flow.mean(), "gap": gap.mean()})

        return loss

    return Method(
        {"critic": towards("critic", "student"), "student": towards("student", "critic")},
        samplers.make("diagonal", interpolant=interpolant),
        owners={"critic": "critic"},
        periods={"critic": period},
        init={"critic": "teacher"} if from_teacher else {},
        teacher="velocity" if from_teacher else "",
        diagonal_only=True,
    )
