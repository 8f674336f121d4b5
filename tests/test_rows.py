"""Rows: keys that do not depend on how a batch is cut, and dealing by static sizes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowmaps import rows
from flowmaps.errors import UsageError


def test_keys_of_a_block_are_those_of_its_global_rows(key):
    whole = jax.random.key_data(rows.keys(key, 7, 12))
    blocks = [jax.random.key_data(rows.keys(key, 7, 4, first=4 * i)) for i in range(3)]
    np.testing.assert_array_equal(whole, np.concatenate(blocks))


def test_streams_of_a_row_and_steps_are_apart(key):
    draws = [
        rows.uniform(rows.fold(rows.keys(key, step, 5000), stream)) for step, stream in [(0, 0), (0, 1), (1, 0), (1, 1)]
    ]
    correlations = np.corrcoef(np.stack(draws)) - np.eye(4)
    assert np.abs(correlations).max() < 4 / 5000**0.5


def test_split_deals_inside_groups_of_consecutive_rows():
    first, second = rows.split({"x": jnp.arange(8)}, (0.75, 0.25))
    np.testing.assert_array_equal(first["x"], [0, 1, 2, 4, 5, 6])
    np.testing.assert_array_equal(second["x"], [3, 7])


@pytest.mark.parametrize("shares", [(0.75, 0.25), (0.5, 0.25, 0.25), (1 / 3, 2 / 3), (0.875, 0.125), (1.0,)])
def test_join_is_the_inverse_of_split(shares):
    x = jnp.arange(48.0).reshape(24, 2)
    np.testing.assert_array_equal(rows.join(rows.split(x, shares), shares), x)


def test_split_takes_keys(key):
    keys = rows.keys(key, 0, 8)
    one, other = rows.split(keys, (0.5, 0.5))
    np.testing.assert_array_equal(jax.random.key_data(one), jax.random.key_data(keys[0::2]))
    np.testing.assert_array_equal(jax.random.key_data(other), jax.random.key_data(keys[1::2]))


@pytest.mark.parametrize(
    ("count", "shares", "message"),
    [
        (6, (0.75, 0.25), "6 rows cannot be dealt.*3/4, 1/4.*multiple of 4"),
        (8, (1.0, 0.0), "each must be above 0"),
        (8, (0.5, 0.25), "their sum 1"),
    ],
)
def test_a_term_without_rows_is_an_error_with_the_numbers(count, shares, message):
    with pytest.raises(UsageError, match=message):
        rows.split(jnp.zeros(count), shares)
