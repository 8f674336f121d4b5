"""Couplings: marginals, and plans that can be known by other means."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from scipy.spatial.distance import cdist

from flowmaps import couplings, rows
from flowmaps.errors import UsageError

COUNT = 128


def keys():
    return rows.keys(jax.random.key(0), 3, COUNT)


def data(*shape):
    return jax.random.normal(jax.random.key(1), (COUNT, *shape))


def test_the_exact_plan_in_one_dimension_is_sorting():
    x1 = data(1)
    x0 = jax.jit(couplings.make("optimal_transport", group=COUNT))(x1, None, keys())
    np.testing.assert_array_equal(np.argsort(x0[:, 0]), np.argsort(x1[:, 0]))


def test_the_exact_plan_is_scipys_in_every_group():
    """Images too: the draws are those of the independent coupling, in another order inside each group of 32."""
    x1, group = data(2, 2, 1), 32
    paired = jax.jit(couplings.make("optimal_transport", group=group, scale=0.5))(x1, None, keys())
    plain = couplings.make("independent", scale=0.5)(x1, None, rows.fold(keys(), 0))
    for start in range(0, COUNT, group):
        here = slice(start, start + group)
        flat = [np.asarray(v[here]).reshape(group, -1) for v in (x1, plain, paired)]
        best = linear_sum_assignment(cdist(flat[0], flat[1], "sqeuclidean"))[1]
        np.testing.assert_allclose(flat[2], flat[1][best], rtol=1e-6)


@pytest.mark.parametrize("name", couplings.COUPLINGS)
def test_rows_that_the_data_bring_are_used_each_once(name):
    """In another order, perhaps: the exact plan of a source that is the data is to leave each row where it is."""
    x1 = data(2)
    given = jax.random.permutation(jax.random.key(2), x1)
    x0 = jax.jit(couplings.make(name, **({"group": COUNT} if name == "optimal_transport" else {})))(x1, given, keys())
    np.testing.assert_array_equal(x0, x1 if name == "optimal_transport" else given)


def test_sinkhorns_plan_lies_between_the_exact_and_the_independent_one():
    """Mean squared distances rise with the regularization, from the least to that of independent pairs."""
    x1 = data(2)

    def cost(name, **options):
        x0 = jax.jit(couplings.make(name, **options))(x1, None, keys())
        return float(jnp.mean(jnp.sum((x1 - x0) ** 2, axis=1)))

    exact = cost("optimal_transport", group=COUNT)
    mild, strong = (cost("optimal_transport", group=COUNT, regularization=r) for r in (0.05, 100.0))
    independent = cost("independent")
    assert exact < mild < 0.5 * strong
    np.testing.assert_allclose(strong, independent, rtol=0.3)


def test_a_batch_of_part_groups_is_refused():
    with pytest.raises(UsageError, match=r"a batch of 128 rows is not a multiple of coupling\.group=48"):
        couplings.make("optimal_transport", group=48)(data(2), None, keys())
