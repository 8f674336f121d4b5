import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps import optimizers
from flowmaps.errors import UsageError

UPDATES = 100
N = np.arange(UPDATES)


def rates(name, **options):
    rate = optimizers.make_schedule(name, 0.3, updates=UPDATES, **options)
    return jax.vmap(rate)(jnp.arange(UPDATES))


@pytest.mark.float64
@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("constant", {}, np.full(UPDATES, 0.3)),
        ("constant", {"warmup_steps": 9}, 0.3 * np.minimum((N + 1) / 10, 1)),
        ("cosine", {}, 0.3 * (1 + np.cos(np.pi * N / UPDATES)) / 2),
        (
            "cosine",
            {"warmup_steps": 20},
            0.3 * np.minimum((N + 1) / 21, 1) * (1 + np.cos(np.pi * np.maximum(N - 20, 0) / 80)) / 2,
        ),
        ("rsqrt", {"decay_steps": 25}, 0.3 / np.sqrt(np.maximum(N / 25, 1))),
    ],
)
def test_schedules_are_their_formulas(name, options, expected):
    np.testing.assert_allclose(rates(name, **options), expected, rtol=1e-12)


def test_cosine_ends_at_zero():
    rate = optimizers.make_schedule("cosine", 1.0, updates=UPDATES, warmup_steps=10)
    np.testing.assert_allclose(rate(jnp.asarray(UPDATES)), 0.0, atol=1e-7)


@pytest.mark.parametrize("clip_norm", [0.0, 1.0, 100.0])
def test_clip_scales_the_global_norm(clip_norm):
    """One SGD step at rate 1 moves by the gradient, shortened to the norm where it is longer."""
    gradient = {"a": jnp.array([3.0, -4.0]), "b": jnp.full((2, 2), 6.0)}  # norm 13
    optimizer = optimizers.make("sgd", learning_rate=1.0, updates=UPDATES, clip_norm=clip_norm)
    move, _ = optimizer.update(gradient, optimizer.init(gradient), gradient)
    factor = min(1.0, clip_norm / 13) if clip_norm else 1.0
    for name in gradient:
        np.testing.assert_allclose(move[name], -factor * np.asarray(gradient[name]), rtol=1e-6)


@pytest.mark.float64
def test_adam_is_its_formula_on_the_schedule():
    history = np.random.default_rng(0).normal(size=(5, 3))
    optimizer = optimizers.make(
        "adam", learning_rate=0.1, schedule="cosine", updates=UPDATES, b1=0.8, b2=0.9, weight_decay=0.5
    )
    state = optimizer.init(jnp.zeros(3))
    first, second = np.zeros(3), np.zeros(3)
    for n, gradient in enumerate(history):
        move, state = optimizer.update(jnp.asarray(gradient), state, jnp.zeros(3))
        first, second = 0.8 * first + 0.2 * gradient, 0.9 * second + 0.1 * gradient**2
        mean, variance = first / (1 - 0.8 ** (n + 1)), second / (1 - 0.9 ** (n + 1))
        rate = 0.1 * (1 + np.cos(np.pi * n / UPDATES)) / 2
        np.testing.assert_allclose(
            move, -rate * mean / (np.sqrt(variance) + 1e-8), rtol=1e-6
        )  # optax corrects the bias in float32
        np.testing.assert_allclose(optimizer.learning_rate(jnp.asarray(n)), rate, rtol=1e-12)


def test_options_reach_the_optimizers_that_take_them():
    """Weight decay moves adamw and not adam; sgd takes none of b1, b2, weight_decay."""
    options = {"learning_rate": 0.1, "updates": UPDATES, "b1": 0.9, "b2": 0.99, "weight_decay": 0.5}
    params, gradient = jnp.ones(2), jnp.zeros(2)
    moves = {}
    for name in ("adam", "adamw", "sgd"):
        optimizer = optimizers.make(name, **options)
        moves[name] = optimizer.update(gradient, optimizer.init(params), params)[0]
    np.testing.assert_allclose(moves["adam"], 0.0)
    np.testing.assert_allclose(moves["sgd"], 0.0)
    np.testing.assert_allclose(moves["adamw"], -0.1 * 0.5, rtol=1e-6)


@pytest.mark.parametrize("name", optimizers.names())
def test_every_name_is_an_optimizer_that_can_be_made_and_updates(name):
    optimizer = optimizers.make(name, learning_rate=0.1, updates=UPDATES)
    params = {"w": jnp.ones((3, 2))}
    move, _ = optimizer.update(params, optimizer.init(params), params)
    assert jax.tree.structure(move) == jax.tree.structure(params)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("adan_w", {}, "unknown optimizer 'adan_w': did you mean 'ada"),
        ("adam", {"schedule": "cosinus"}, "unknown schedule 'cosinus': did you mean 'cosine'"),
        ("adam", {"clip_norm": -1.0}, "clip_norm=-1.0"),
        ("adam", {"warmup_steps": -1}, "warmup_steps=-1"),
        ("adam", {"schedule": "rsqrt", "decay_steps": 0}, "decay_steps=0"),
    ],
)
def test_wrong_values_are_named(name, options, words):
    with pytest.raises(UsageError, match=words):
        optimizers.make(name, learning_rate=0.1, updates=UPDATES, **options)
