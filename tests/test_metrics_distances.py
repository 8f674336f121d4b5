"""Distances between sets against closed forms and brute force."""

import itertools

import numpy as np
import pytest

from flowmaps.errors import UsageError
from flowmaps.metrics import _distances, frechet, kernel, manifold, nearest, plane


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(_distances, "BLOCK_ENTRIES", 50)


def covariance(rng, size, rank):
    factor = rng.normal(size=(size, rank))
    return factor @ factor.T


# Frechet: for commuting covariances it is |m - m'|^2 + sum (sqrt(l) - sqrt(l'))^2 over eigenvalues.
@pytest.mark.parametrize("rank", [6, 3, 1])
def test_frechet_of_commuting_gaussians_of_any_rank(rng, rank):
    basis = np.linalg.qr(rng.normal(size=(6, 6)))[0]
    first, second = rng.uniform(0.1, 4, (2, 6)) * (np.arange(6) < rank)
    second = np.roll(second, 2)  # for a deficient rank the two spans differ
    means = rng.normal(size=(2, 6))
    expected = np.sum((means[0] - means[1]) ** 2) + np.sum((np.sqrt(first) - np.sqrt(second)) ** 2)
    one, two = ((basis * values) @ basis.T for values in (first, second))
    assert np.isclose(frechet.frechet_distance(means[0], one, means[1], two), expected, rtol=1e-6)


def test_frechet_of_gaussians_that_do_not_commute(rng):
    """In two dimensions tr (A B)^(1/2) = sqrt(tr(A B) + 2 sqrt(det(A B)))."""
    one, two = covariance(rng, 2, 2), covariance(rng, 2, 2)
    overlap = np.sqrt(np.trace(one @ two) + 2 * np.sqrt(np.linalg.det(one @ two)))
    expected = np.trace(one) + np.trace(two) - 2 * overlap
    assert np.isclose(frechet.frechet_distance(np.zeros(2), one, np.zeros(2), two), expected, rtol=1e-10)


def test_frechet_of_lines_at_an_angle():
    """Rank one: N(0, a a^T) and N(0, b b^T) have |a|^2 + |b|^2 - 2 |a.b|."""
    a, b = np.array([3.0, 0, 0]), np.array([1.0, 2.0, -1.0])
    distance = frechet.frechet_distance(np.zeros(3), np.outer(a, a), np.zeros(3), np.outer(b, b))
    assert np.isclose(distance, a @ a + b @ b - 2 * abs(a @ b), rtol=1e-7)


def test_frechet_of_sets_with_fewer_points_than_dimensions(rng):
    x = rng.normal(size=(5, 12))
    assert frechet.frechet(x, x) < 1e-6
    assert np.isclose(frechet.frechet(x, x + 2), 12 * 4, rtol=1e-6)


def test_square_root_squares_back(rng):
    matrix = covariance(rng, 7, 4)
    root = frechet.square_root(matrix)
    np.testing.assert_allclose(root @ root, matrix, atol=1e-12)


def brute_force_mmd(x, y, k):
    def within(z):
        return np.mean([k(z[i], z[j]) for i in range(len(z)) for j in range(len(z)) if i != j])

    return within(x) + within(y) - 2 * np.mean([k(a, b) for a in x for b in y])


@pytest.mark.usefixtures("small_blocks")
def test_kernel_distance_equals_a_double_loop(rng):
    x, y = rng.normal(size=(13, 4)), rng.normal(size=(9, 4)) + 1
    expected = brute_force_mmd(x, y, lambda a, b: (a @ b / 4 + 1) ** 3)
    assert np.isclose(kernel.kernel_distance(x, y), expected, rtol=1e-10)


@pytest.mark.usefixtures("small_blocks")
def test_gaussian_discrepancy_equals_a_double_loop(rng):
    x, y = rng.normal(size=(13, 2)), rng.normal(size=(9, 2)) + 1
    spread = np.sqrt(y.var(axis=0).mean())

    def k(a, b):
        return np.mean([np.exp(-np.sum((a - b) ** 2) / (2 * (h * spread) ** 2)) for h in (0.1, 0.3, 1)])

    assert np.isclose(kernel.gaussian_mmd(x, y), brute_force_mmd(x, y, k), rtol=1e-10)


@pytest.mark.parametrize("n, m", [(10, 10), (10, 25)])
def test_kernel_distance_is_unbiased(rng, n, m):
    values = [kernel.kernel_distance(rng.normal(size=(n, 3)), rng.normal(size=(m, 3))) for _ in range(2000)]
    assert abs(np.mean(values)) < 4 * np.std(values) / np.sqrt(len(values))


def test_kernel_distance_of_shifted_gaussians_in_one_dimension():
    """E k = E (x y + 1)^3 = 1 + 3 E[x]E[y] + 3 E[x^2]E[y^2] + E[x^3]E[y^3], so MMD^2 = sum of squared differences."""
    shift = 0.5
    moments = np.array([shift, 1 + shift**2, shift**3 + 3 * shift]) - np.array([0, 1, 0])
    expected = np.array([3, 3, 1]) @ moments**2
    rng = np.random.default_rng(1)
    values = [kernel.kernel_distance(rng.normal(size=(50, 1)) + shift, rng.normal(size=(50, 1))) for _ in range(300)]
    assert abs(np.mean(values) - expected) < 4 * np.std(values) / np.sqrt(len(values))


def brute_force_manifold(x, y, k, k_density):
    def distance(a, b):
        return np.sqrt(np.sum((a - b) ** 2))

    def radius(z, i, k):
        return sorted(distance(z[i], z[j]) for j in range(len(z)) if j != i)[k - 1]

    def in_ball(point, z, i, k):
        return distance(point, z[i]) <= radius(z, i, k)

    return {
        "precision": np.mean([any(in_ball(a, y, i, k) for i in range(len(y))) for a in x]),
        "recall": np.mean([any(in_ball(b, x, i, k) for i in range(len(x))) for b in y]),
        "density": np.mean([sum(in_ball(a, y, i, k_density) for i in range(len(y))) for a in x]) / k_density,
        "coverage": np.mean([any(in_ball(a, y, i, k_density) for a in x) for i in range(len(y))]),
    }


@pytest.mark.usefixtures("small_blocks")
def test_manifold_equals_brute_force(rng):
    x, y = rng.normal(size=(24, 2)), rng.normal(size=(19, 2)) + 1
    expected = brute_force_manifold(x, y, 3, 5)
    computed = manifold.manifold(x, y)
    assert all(0 < expected[name] < 1 for name in ("precision", "recall", "coverage"))
    for name, value in expected.items():
        assert np.isclose(computed[name], value, rtol=1e-12), name


def test_manifold_of_sets_far_apart_is_zero(rng):
    x = rng.normal(size=(20, 3))
    assert set(manifold.manifold(x, x + 100).values()) == {0.0}


def test_a_collapsed_sample_is_precise_and_recalls_nothing(rng):
    y = rng.normal(size=(50, 2))
    values = manifold.manifold(np.repeat(y[:1], 50, axis=0), y)
    assert values["precision"] == 1
    assert values["recall"] == 1 / 50


@pytest.mark.usefixtures("small_blocks")
def test_nearest_neighbour_ratio_by_hand(rng):
    train = np.array([[0.0, 0.0], [10.0, 0.0]])
    test = np.array([[0.0, 2.0], [10.0, 2.0], [10.0, -2.0]])
    assert nearest.nearest_neighbour_ratio(np.array([[0.0, 1.0], [10.0, 1.0]]), train, test) == 0.5
    assert nearest.nearest_neighbour_ratio(train, train, test) == 0
    assert nearest.nearest_neighbour_ratio(test, train, test) == 1


@pytest.mark.usefixtures("small_blocks")
def test_neighbour_radius_leaves_the_point_itself_out():
    line = np.array([[0.0], [1.0], [3.0], [7.0]])
    np.testing.assert_array_equal(_distances.neighbour_radius(line, 1), [1, 1, 4, 16])
    np.testing.assert_array_equal(_distances.neighbour_radius(line, 2), [9, 4, 9, 36])


@pytest.mark.usefixtures("small_blocks")
def test_distances_of_wide_points_are_those_of_narrow_ones(rng, monkeypatch):
    """Copies lie within rounding of each other, so that a sample that is a training image stays in its ball."""
    x, y = rng.normal(1, 1, (9, 300)), rng.normal(1, 1, (12, 300))
    y[3] = x[5]
    wide = np.concatenate([block for _, block in _distances.squared_distances(x, y)])
    radius, values = _distances.neighbour_radius(x, 2), manifold.manifold(x, y)
    monkeypatch.setattr(_distances, "WIDE", 10_000)
    exact = np.concatenate([block for _, block in _distances.squared_distances(x, y)])
    np.testing.assert_allclose(wide, exact, rtol=1e-11, atol=1e-10)
    assert exact[5, 3] == 0 and 0 <= wide[5, 3] < 1e-10
    np.testing.assert_allclose(radius, _distances.neighbour_radius(x, 2), rtol=1e-11)
    assert values == manifold.manifold(x, y)


@pytest.mark.parametrize("rows, columns", [(7, 3), (100, 1000), (1, 1)])
@pytest.mark.usefixtures("small_blocks")
def test_blocks_cover_every_row_once_within_bounds(rows, columns):
    blocks = list(_distances.row_blocks(rows, columns))
    np.testing.assert_array_equal(np.concatenate([np.arange(rows)[b] for b in blocks]), np.arange(rows))
    assert all((b.stop - b.start) * columns <= 50 or b.stop - b.start == 1 for b in blocks)


def test_wasserstein_equals_the_best_permutation(rng):
    x, y = rng.normal(size=(2, 6, 2))
    best = min(np.mean(np.sum((x[list(p)] - y) ** 2, axis=1)) for p in itertools.permutations(range(6)))
    assert np.isclose(plane.wasserstein(x, y), np.sqrt(best), rtol=1e-12)


def test_wasserstein_of_a_shifted_set_is_the_shift(rng):
    x, shift = rng.normal(size=(40, 2)), np.array([0.3, -0.4])
    assert np.isclose(plane.wasserstein(x, rng.permutation(x + shift)), 0.5, rtol=1e-12)


def test_wasserstein_of_a_stretched_set_is_that_of_the_gaussians_with_its_moments(rng):
    """A positive linear map is the optimal one: W2^2 = mean |x - A x|^2, Frechet's with the set's own moments."""
    x = rng.normal(size=(40, 2))
    x = x - x.mean(axis=0)
    stretched = x @ np.array([[2.0, 0.5], [0.5, 1.0]])
    moments = [(z.mean(axis=0), z.T @ z / len(z)) for z in (x, stretched)]
    expected = frechet.frechet_distance(*moments[0], *moments[1])
    assert np.isclose(plane.wasserstein(x, rng.permutation(stretched)) ** 2, expected, rtol=1e-9)


def test_sliced_wasserstein_of_a_shift_is_its_mean_square_projection(rng):
    x, shift = rng.normal(size=(40, 2)), np.array([0.3, -0.4])
    directions = np.random.default_rng(5).standard_normal((2, 256))
    directions /= np.linalg.norm(directions, axis=0)
    distance = plane.sliced_wasserstein(x, rng.permutation(x + shift), seed=5)
    assert np.isclose(distance, np.sqrt(np.mean((shift @ directions) ** 2)), rtol=1e-12)
    many = plane.sliced_wasserstein(x, x + shift, projections=100_000)
    assert np.isclose(many, 0.5 / np.sqrt(2), rtol=0.01)


def test_sliced_wasserstein_is_at_most_the_exact_one(rng):
    x, y = rng.normal(size=(2, 50, 2))
    assert plane.sliced_wasserstein(x, y) < plane.wasserstein(x, y)


def test_centres_are_exact_and_in_the_order_of_counts():
    centres = plane.centres(50)
    np.testing.assert_array_equal(np.unique(centres[:, 0])[[0, 12, 37, 49]], [-0.98, -0.5, 0.5, 0.98])
    np.testing.assert_array_equal(np.flatnonzero(plane.counts(centres[[51, 2499]], 50)), [51, 2499])


def test_counts_take_the_edges_of_the_box_and_leave_out_the_rest():
    inside = np.array([[-1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    outside = np.array([[1.0001, 0.0], [0.0, -7.0]])
    np.testing.assert_array_equal(plane.counts(np.concatenate([inside, outside]), 2), [1, 0, 1, 1])


def test_divergence_by_hand():
    """Uniform on the square, four bins: q = (4, 2, 0 -> 1/2, 1) / 8 with one of eight samples outside."""
    centres = plane.centres(2)
    samples = np.concatenate([np.repeat(centres, [4, 2, 0, 1], axis=0), [[9.0, 9.0]]])
    expected = np.mean(np.log(0.25 / (np.array([4, 2, 0.5, 1]) / 8)))
    assert np.isclose(plane.histogram_kl(samples, lambda x: np.full(len(x), -np.log(4)), bins=2), expected)


def test_divergence_refuses_a_law_that_the_grid_does_not_hold():
    with pytest.raises(UsageError, match=r"sees a mass of 0\.44 of this law"):
        plane.histogram_kl(np.zeros((16, 2)), lambda x: np.full(len(x), -np.log(9)), bins=10)
