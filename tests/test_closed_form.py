"""Every method at its fixed point: there the mean gradient is zero, and away from it it points back.

The exact map of a known law stands in for the network, plus theta times a basis of fields. The suite itself is tested
by faults that it must catch.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.lax import stop_gradient
from laws import (
    COUNT,
    LAWS,
    LINEAR,
    SOURCE_STD,
    TwoHeads,
    draw_batch,
    euler_map,
    gradients,
    interpolated,
    regressed_map,
    skipping_map,
    stray,
)

from flowmaps import methods, rows, times
from flowmaps.identities import directional_derivative, eulerian
from flowmaps.methods import stochastic_interpolant
from flowmaps.rows import expand
from flowmaps.types import Loss, Method, Roles
from flowmaps.weightings import squared

PLAIN = {"power": 0.0, "law": ("uniform",)}
GRID = {"schedule": "doubling", "intervals": (8, 8)}
WHOLE = {"warmup_steps": 0, "law": ("uniform",)}
UNWEIGHTED = {"cosine": 0.0, "clip": float("inf"), "constant": 1e6}
VARIANTS = {
    "lsd": [{}, {"through": "velocity"}, {"weights": (1.0, 1.0)}, {"learned_weight": True}],
    "esd": [{}, {"through": "map"}, {"through": "velocity"}],
    "psd": [{}, {"middle": "uniform"}],
    "diffusion": [{}, {"weighting": "constant"}, {"weighting": "truncated_snr"}, {"weighting": "min_snr"}],
    "score_matching": [{}, {"objective": "implicit"}, {"objective": "sliced"}],
    "shortcut": [{"levels": 4}, {"levels": 4, "smallest": "released", "flow_times": "grid", "clip": 4.0}],
    "stochastic_interpolant": [{"latent": name, "scale": 0.2} for name in ("bridge", "sine", "constant")],
    "mean_flow": [PLAIN, {**PLAIN, "tangent": "model"}, {}, {"power": 0.5}],
    "improved_mean_flow": [PLAIN, {}],
    "consistency": [
        GRID,
        {**GRID, "distance": "pseudo_huber", "weighting": "gap"},
        {**GRID, "distance": "l1", "initial_decay": 0.9},
        {"schedule": "ratio", "law": ("log_normal", -1.0, 1.0), "stages": 1},
    ],
    "continuous_consistency": [
        {**WHOLE, "constant": 0.0, "learned_weight": False},
        {**WHOLE, "learned_weight": True},
    ],
    "alpha_flow": [
        {**PLAIN, "schedule": "exponential", "between": (0.3, 0.3)},
        {"schedule": "sigmoid", "between": (0.5, 1.0)},
    ],
    "facm": [{**UNWEIGHTED, "law": ("uniform",)}, {"cosine": 0.0}],
    "align_your_flow": [{**WHOLE, "most": 1.0, "constant": 0.0}, {**WHOLE, "most": 1.0}],
    "flow_map_distillation": [{}, {"objective": "direct"}],
    "latent_consistency": [{"chain": 8, "skip": 1}, {"chain": 8, "skip": 3}],
    "imm": [{"group": 16, "halvings": 16}],
    "ctm": [{"intervals": 8}, {"intervals": 8, "leg": "ddim", "most_steps": 5}],
    "truncated_consistency": [{"stage": 2, "boundary": 0.3, "huber": 1.0}],
    "progressive_distillation": [{"space": "velocity"}, {"space": "velocity", "inputs": "noise", "first": 4}],
}
"""The options under test; a method that is not listed is tested with its defaults."""
THROUGH_INPUTS = ("ctm", "flow_map_distillation")
"""Methods whose gradient flows through the input of target or teacher, whose parameters are stopped where they are
bound."""
ON_TRAJECTORIES = ("knowledge_distillation", "consistency_mid_training")
"""Methods that learn from a teacher's ways and not from data, which are tested on them: tests/test_trajectories.py."""
ON_LAWS = ("score_distillation", "dmd", "dmd2", "adversarial_distillation", "imle")
"""Methods that ask of a student's samples that they have the data's law, by whichever map: they rest beside players
that know the samples of a stray one, which these are not, and have files of their own."""
CASES = [
    (name, options)
    for name in methods.names()
    if name not in ON_TRAJECTORIES + ON_LAWS
    for options in VARIANTS.get(name, [{}])
]


def label(value) -> str:
    return value if isinstance(value, str) else ",".join(f"{k}={v}" for k, v in value.items()) or "default"


def gaussian_alone(name: str, options: dict) -> bool:
    """Weights that depend on a row's own residual are unbiased under symmetric noise alone, and where a path's own step
    stands for the flow's the fixed point has a closed form for Gaussian data."""
    return {
        "mean_flow": options.get("power", 1.0) > 0,
        "improved_mean_flow": options.get("power", 1.0) > 0,
        "continuous_consistency": options.get("constant", 1.0) > 0,
        "align_your_flow": options.get("constant", 1.0) > 0,
        "facm": options.get("constant", 0.0) < 1,
        "ctm": options.get("leg", "path") == "path",
    }.get(name, name in ("consistency", "truncated_consistency", "alpha_flow", "imm"))


def fixed_point(name: str, options: dict, law: str):
    """The map at which the method rests: the exact one, but for shortcut models Euler's on their grid of times, for
    those that learn from a teacher's steps these, for those that take the path's own step a product of regressions, and
    for methods with heads the heads that make it."""
    if name == "shortcut":
        return euler_map(LAWS[law](), 2 ** options["levels"], options.get("smallest", "instantaneous"))
    if name == "latent_consistency":
        return skipping_map(LAWS[law](), options["skip"] / options["chain"], -(-options["chain"] // options["skip"]))
    if name == "ctm" and options.get("leg") == "ddim":
        return euler_map(LAWS[law](), options["intervals"], "instantaneous")
    if name == "stochastic_interpolant":
        return interpolated(law, getattr(stochastic_interpolant, options["latent"])(options["scale"]).value)
    if name == "improved_mean_flow":
        return TwoHeads(LAWS[law]())
    if name in FOLLOWING:
        return regressed_map(*FOLLOWING[name](options))
    return LAWS[law]().average_velocity


def next_of_grid(options: dict):
    """The next of equally spaced times, at most t."""
    count = options["intervals"] if isinstance(options["intervals"], int) else options["intervals"][0]
    return lambda s, t: jnp.minimum((jnp.round(s * count) + 1) / count, t), count


def next_of_ratio(options: dict):
    """ECT's in a stage, as its paper has it: sigma (1 - (1 + 8 sigmoid(-sigma)) / 2^stage), or the path's end."""

    def following(s, t):
        sigma = SOURCE_STD * (1 - s) / s
        smaller = jnp.maximum(sigma * (1 - (1 + 8 * jax.nn.sigmoid(-sigma)) / 2 ** options.get("stage", 1)), 0)
        return SOURCE_STD / (SOURCE_STD + smaller)

    return following, 24 * options.get("stage", 1)


def next_of_alpha(options: dict):
    """A share of what is left."""
    share = options["between"][0] if options["schedule"] == "exponential" else 1.0
    return lambda s, t: s + share * (t - s), 48 if share < 1 else 1


FOLLOWING = {
    "consistency": lambda options: (next_of_ratio if options["schedule"] == "ratio" else next_of_grid)(options),
    "truncated_consistency": next_of_ratio,
    "ctm": next_of_grid,
    "alpha_flow": next_of_alpha,
}


def assert_rests_and_returns(method: Method, oracle, exact) -> None:
    """The gradient at theta = 0 is zero to 4 standard errors, or where nothing is drawn to the oracle's own error, and
    a stray of 0.1 is pulled back, clearly. Where nothing is drawn a few batches tell as much as many."""
    gradient = gradients(method, exact, oracle.sample)
    rest = gradient(jnp.zeros(COUNT), 4)
    drawn = bool(np.any(np.abs(rest.mean) > 2e-5))
    if drawn:
        rest = gradient(jnp.zeros(COUNT), 64)
    assert np.all(np.abs(rest.mean) <= 4 * rest.error + 2e-5), f"moves: {rest.mean} +- {rest.error}"
    for k in range(COUNT):
        pull = gradient(0.1 * jnp.eye(COUNT)[k], 4 if drawn else 1).mean[k]
        assert pull > 0, f"field {k} is pushed away: {pull}"
        assert rest.error[k] < 0.03 * pull, f"field {k}: an error of {rest.error[k]} hides a pull of {pull}"


def cases():
    """Each method on both laws. With other options than its default ones it takes long on the mixture."""
    for name, options in CASES:
        yield pytest.param(name, options, "gaussian")
        if not gaussian_alone(name, options):
            yield pytest.param(name, options, "mixture", marks=[pytest.mark.long] if options else [])


@pytest.mark.parametrize(("name", "options", "law"), list(cases()), ids=label)
def test_fixed_point(name, options, law):
    oracle = LAWS[law]()
    method = methods.load(name).make(interpolant=LINEAR, total_steps=100, **options)
    assert_rests_and_returns(method, oracle, fixed_point(name, options, law))


@pytest.mark.parametrize(("name", "options"), [c for c in CASES if c[0] not in THROUGH_INPUTS], ids=label)
def test_no_gradient_reaches_the_target(name, options):
    """The parameters of target and teacher have an exactly zero gradient: every leg is stopped."""
    oracle = LAWS["gaussian"]()
    method = methods.load(name).make(interpolant=LINEAR, total_steps=100, **options)
    keys = rows.keys(jax.random.key(0), 0, 256)
    theta = 0.1 * jnp.ones(COUNT)

    def loss(student_theta, target_theta):
        extras = {"log_variance": lambda s, t: s + t}
        exact = fixed_point(name, options, "gaussian")
        roles = Roles(stray(exact, student_theta), stray(exact, target_theta), stray(exact, target_theta), extras)
        out = method.losses["student"](roles, draw_batch(oracle.sample, keys), keys, jnp.zeros((), jnp.int32))
        return out.per_example.mean()

    student, target = jax.jit(jax.grad(loss, argnums=(0, 1)))(theta, theta)
    assert np.all(target == 0)
    assert np.all(student != 0)


def off_diagonal_method(residual) -> Method:
    """A method with one term: residual(roles, batch, x_s, path velocity, s, t), (s, t) on the triangle."""

    def loss(roles, batch, keys, step):
        s, t = times.sorted_pair(times.uniform())(keys)
        x, velocity = LINEAR.point(batch["x0"], batch["x1"], s), LINEAR.velocity(batch["x0"], batch["x1"], s)
        return Loss(squared(residual(roles, batch, x, velocity, s, t)), {})

    return Method({"student": loss}, None)


def nothing_stopped(roles, batch, x, velocity, s, t):
    return eulerian(roles.student, x, s, t, velocity, {}, through="all")


def wrong_sign_of_the_time_derivative(roles, batch, x, velocity, s, t):
    v, dv = directional_derivative(lambda x, s: roles.student(x, s, t, {}), (x, s), (velocity, -jnp.ones_like(s)))
    return v - stop_gradient(velocity + expand(t - s, x) * dv)


def swapped_times_in_the_derivative(roles, batch, x, velocity, s, t):
    v, dv = directional_derivative(lambda x, t: roles.student(x, s, t, {}), (x, t), (velocity, jnp.ones_like(s)))
    return v - stop_gradient(velocity + expand(t - s, x) * dv)


def conditional_velocity_at_a_transported_point(roles, batch, x, velocity, s, t):
    v, dv = directional_derivative(lambda t: roles.student(x, s, t, {}), (t,), (jnp.ones_like(t),))
    return v + expand(t - s, x) * dv - LINEAR.velocity(batch["x0"], batch["x1"], t)


def derivative_without_its_jacobian_term(roles, batch, x, velocity, s, t):
    v, dv = directional_derivative(lambda s: roles.student(x, s, t, {}), (s,), (jnp.ones_like(s),))
    return v - stop_gradient(velocity + expand(t - s, x) * dv)


def sound(roles, batch, x, velocity, s, t):
    return eulerian(roles.student, x, s, t, velocity, {}, through="velocity")


FAULTS = (
    nothing_stopped,
    wrong_sign_of_the_time_derivative,
    swapped_times_in_the_derivative,
    conditional_velocity_at_a_transported_point,
    derivative_without_its_jacobian_term,
)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("residual", [sound, *FAULTS], ids=lambda f: f.__name__)
def test_the_suite_catches_planted_faults(residual, law):
    """The same frame passes with the sound residual, and with each fault it does not rest at the exact map."""
    oracle = LAWS[law]()
    gradient = gradients(off_diagonal_method(residual), oracle.average_velocity, oracle.sample)
    rest = gradient(jnp.zeros(COUNT), 64)
    rests = bool(np.all(np.abs(rest.mean) <= 4 * rest.error + 1e-6))
    assert rests == (residual is sound)
    if residual is not sound:
        assert np.max(np.abs(rest.mean) / rest.error) > 20


@pytest.mark.parametrize(("power", "shift"), [(1.0, 0.028), (0.5, 0.016)])
def test_adaptive_weight_is_biased_on_a_mixture(power, shift):
    """How far the constant field's rest point is moved by weights of a skewed residual: see weightings.adaptive."""
    oracle = LAWS["mixture"]()
    method = methods.load("mean_flow").make(
        interpolant=LINEAR, total_steps=100, power=power, law=("uniform",), diagonal_times="law"
    )
    gradient = gradients(method, oracle.average_velocity, oracle.sample)
    rest = gradient(jnp.zeros(COUNT), 64)
    pull = gradient(0.1 * jnp.eye(COUNT)[0], 64)
    moved = 0.1 * rest.mean[0] / (pull.mean[0] - rest.mean[0])
    assert abs(rest.mean[0]) > 10 * rest.error[0]
    np.testing.assert_allclose(abs(moved), shift, rtol=0.1)
