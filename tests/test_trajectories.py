"""Methods that learn from a teacher's trajectories: reflow, knowledge distillation, consistency mid-training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from laws import COUNT, LAWS, LINEAR, SOURCE_STD, stray

from flowmaps import interpolants, methods, rows
from flowmaps.errors import UsageError
from flowmaps.identities import flow_map
from flowmaps.solvers import steps
from flowmaps.types import Roles

KEYS = rows.keys(jax.random.key(0), 0, 512)
POINTS = 4
STD, MEAN = 0.7, 0.4
PATH = interpolants.linear()


def loss(name, student, batch, *, teacher=None, interpolant=LINEAR, keys=KEYS, **options):
    method = methods.load(name).make(interpolant=interpolant, total_steps=10, **options)
    roles = Roles(student, student, teacher)
    return method.losses["student"](roles, batch, keys, jnp.zeros((), jnp.int32))


def stored(law):
    """Pairs of the exact flow, with the states of their ways."""
    oracle, x0 = LAWS[law](), SOURCE_STD * rows.normal(rows.fold(KEYS, 1), (2,))
    times = [jnp.full(len(KEYS), k / POINTS) for k in range(POINTS + 1)]
    path = jnp.stack([flow_map(oracle.average_velocity, x0, times[0], t, {}) for t in times[1:]], axis=1)
    return {"x0": x0, "x1": path[:, -1], "path": path}


CASES = [
    ("knowledge_distillation", {}),
    ("knowledge_distillation", {"points": POINTS}),
    ("consistency_mid_training", {"points": POINTS}),
    ("consistency_mid_training", {"points": POINTS, "maps": "all"}),
]


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_nothing_is_lost_at_the_exact_map_and_a_stray_is_pulled_back(name, options, law):
    exact, batch = LAWS[law]().average_velocity, stored(law)

    @jax.jit
    @jax.value_and_grad
    def mean(theta):
        return loss(name, stray(exact, theta), batch, **options).per_example.mean()

    value, slope = mean(jnp.zeros(COUNT))
    assert value < 1e-5
    np.testing.assert_allclose(slope, 0, atol=2e-3)
    for k in range(COUNT):
        assert mean(0.1 * jnp.eye(COUNT)[k])[1][k] > 1e-3


def velocity(x, s, t, cond, *, dropout=None):
    """b_t of N(MEAN, STD^2) from unit noise on the linear path, whatever the end."""
    a, b = s[:, None], (1 - s)[:, None]
    return MEAN + (a * STD**2 - b) / (b**2 + (a * STD) ** 2) * (x - a * MEAN)


@pytest.mark.float64
@pytest.mark.parametrize("solver", ["ddim", "heun"])
@pytest.mark.parametrize("name", ["knowledge_distillation", "consistency_mid_training"])
def test_online_the_student_rests_at_the_product_of_the_teachers_steps(name, solver):
    """Affine in x for Gaussian data, and exactly representable: no loss is left at any state of the way."""
    path = interpolants.variance_exploding()

    def teacher(x, s, t, cond, *, dropout=None):
        sigma = path.sigma(s)[:, None]
        return path.beta.slope(s)[:, None] * sigma * x / (STD**2 + sigma**2)

    count, points = 8, 4
    grid = jnp.linspace(0, 1, count + 1)
    gains = steps.STEPS[solver](teacher, path, jnp.ones((count, 1)), grid[:-1], grid[1:], {})[:, 0]
    products = jnp.concatenate([jnp.cumprod(gains[::-1])[::-1], jnp.ones(1)])

    def student(x, s, t, cond, *, dropout=None):
        return ((products[jnp.round(s * count).astype(jnp.int32)] - 1) / (1 - s))[:, None] * x

    batch = {"x0": rows.normal(rows.fold(KEYS, 1), (2,)), "x1": jnp.zeros((len(KEYS), 2))}
    given = {"teacher": teacher, "interpolant": path, "pairs": "online", "solver": solver, "solver_steps": count}
    out = loss(name, student, batch, **given, points=points)
    assert out.per_example.max() < 1e-18
    assert loss(name, velocity, batch, **given, points=points).per_example.min() > 0
    with pytest.raises(UsageError, match=r"method\.points=3 must divide method\.solver_steps=8"):
        loss(name, student, batch, **given, points=3)


def straight(x, s, t, cond, *, dropout=None):
    """The second rectified flow's velocity between N(0, 1) and N(MEAN, STD^2), constant along each way."""
    return MEAN + (STD - 1) * (x - s[:, None] * MEAN) / (1 - s + s * STD)[:, None]


@pytest.mark.float64
@pytest.mark.parametrize("options", [{}, {"law": ("multiples", 1)}, {"distance": "l1"}], ids=str)
def test_the_second_rectified_flow_is_straight(options):
    """Of the first flow's pairs x1 = MEAN + STD x0: no residual, and one Euler step is exact."""
    x0 = rows.normal(rows.fold(KEYS, 1), (2,))
    batch = {"x0": x0, "x1": MEAN + STD * x0}
    assert loss("reflow", straight, batch, interpolant=PATH, **options).per_example.max() < 1e-12
    zeros = jnp.zeros(len(KEYS))
    np.testing.assert_allclose(x0 + straight(x0, zeros, zeros, {}), batch["x1"], atol=1e-12)
    assert loss("reflow", velocity, batch, interpolant=PATH).per_example.mean() > 1e-2


def test_real_rows_have_the_first_flows_velocity():
    """Half of the rows are real data with noise of their own: there the first flow's b_t is the rest point and not the
    straight one, which is that of the pairs."""
    many = rows.keys(jax.random.key(3), 0, 20_000)
    x0, real = (rows.normal(rows.fold(many, stream), (1,)) for stream in (1, 2))
    batch = {"x0": x0, "x1": MEAN + STD * x0, "real": MEAN + STD * real}

    def at(shift):
        def student(x, s, t, cond, *, dropout=None):
            return straight(x, s, t, cond) + shift * (velocity(x, s, t, cond) - straight(x, s, t, cond))

        return loss("reflow", student, batch, interpolant=PATH, keys=many, real_share=0.5).metrics

    assert at(0.0)["flow"] < 1e-9 < at(1.0)["flow"]
    slope = jax.grad(lambda shift: at(shift)["real"])
    assert abs(slope(1.0)) < -0.1 * slope(0.0)


def test_stored_states_are_thinned_to_the_points_asked_for():
    """Eight states and four points: every second one, the last among them; and none that are not there."""
    batch = stored("gaussian")
    two = {**batch, "path": batch["path"][:, 1::2]}
    exact = LAWS["gaussian"]().average_velocity
    wrong = stray(exact, 0.1 * jnp.ones(COUNT))
    for name in ("knowledge_distillation", "consistency_mid_training"):
        thinned, given = (loss(name, wrong, b, points=2).per_example for b in (batch, two))
        np.testing.assert_array_equal(thinned, given)
        with pytest.raises(
            UsageError, match=r"method\.points=3 must divide the states that stored pairs keep, and these"
        ):
            loss(name, exact, batch, points=3)
