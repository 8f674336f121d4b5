import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps import ema


@pytest.mark.float64
def test_average_is_the_weighted_sum_of_its_history():
    """a_N = prod_n d_n a_0 + sum_n (1 - d_n) prod_{m > n} d_m p_n, with d_n = min(decay, (1 + n) / (10 + n))."""
    history = np.random.default_rng(0).normal(size=(200, 3))
    averages = ema.start({"w": jnp.asarray(history[0])}, (0.5, 0.9, 0.999))
    for n, params in enumerate(history[1:]):
        averages = ema.update(averages, {"w": jnp.asarray(params)}, jnp.asarray(n))
    steps = np.arange(199)
    for name, average in averages.items():
        decays = np.minimum(float(name), (1 + steps) / (10 + steps))
        later = np.append(np.cumprod(decays[::-1])[::-1][1:], 1.0)
        expected = np.prod(decays) * history[0] + ((1 - decays) * later) @ history[1:]
        np.testing.assert_allclose(average["w"], expected, rtol=1e-13)


def test_warm_up_reaches_the_decay_and_stays_there():
    decays = [float(ema.warm(0.9, jnp.asarray(n))) for n in (0, 1, 79, 80, 81, 1000)]
    np.testing.assert_allclose(decays, [0.1, 2 / 11, 80 / 89, 0.9, 0.9, 0.9], rtol=1e-6)


def test_average_equal_to_the_parameters_stays_so_to_the_bit():
    params = {"w": jax.random.normal(jax.random.key(0), (100,))}
    averages = ema.update(ema.start(params, (0.999,)), params, jnp.asarray(7))
    np.testing.assert_array_equal(averages["0.999"]["w"], params["w"])


def test_averages_have_buffers_of_their_own_and_can_be_donated():
    params = {"w": jnp.ones(5)}
    held = {"params": params, "ema": ema.start(params, (0.9, 0.99))}
    pointers = {x.unsafe_buffer_pointer() for x in jax.tree.leaves(held)}
    assert len(pointers) == 3
    doubled = jax.jit(lambda tree: jax.tree.map(lambda x: 2 * x, tree), donate_argnums=0)(held)
    np.testing.assert_array_equal(doubled["ema"]["0.9"]["w"], 2 * np.ones(5))
