"""Pictures: that they show the numbers they are given, where and how they should."""

import io
import math
import sys

import numpy as np
from PIL import Image
from test_measurements import row

from flowmaps import plots


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))


def test_an_image_grid_shows_every_pixel_as_a_square():
    rng = np.random.default_rng(0)
    rows = {"1 step": rng.integers(0, 256, (3, 4, 4, 1), np.uint8), "": rng.integers(0, 256, (2, 4, 4, 1), np.uint8)}
    whole = pixels(plots.image_grid(rows, tile=12, gap=2))
    picture = whole[:, -(3 * 14 - 2) :]
    assert len(picture) == 2 * 14 - 2
    assert whole[:12, : -(3 * 14 - 2), 3].any() and not whole[:, -(3 * 14) : -(3 * 14 - 2), 3].any()
    for r, images in enumerate(rows.values()):
        for c, image in enumerate(images):
            tile = picture[14 * r :, 14 * c :][:12, :12]
            np.testing.assert_array_equal(tile[..., 0], image[..., 0].repeat(3, 0).repeat(3, 1))
            assert (tile[..., 3] == 255).all()
    assert (picture[:12, 12:14, 3] == 0).all()  # between two images
    assert (picture[14:, 28:, 3] == 0).all()  # where a row is shorter


def test_an_image_grid_keeps_colours():
    image = np.random.default_rng(0).integers(0, 256, (1, 5, 5, 3), np.uint8)
    picture = pixels(plots.image_grid({"": image}, tile=5, gap=2))
    np.testing.assert_array_equal(picture[..., :3], image[0])


def test_a_histogram_is_a_density():
    x = np.random.default_rng(0).uniform(-1, 1, (5_000, 2))
    edges = np.linspace(-2, 2, 9)
    values = plots._histogram(x, edges)
    np.testing.assert_allclose(values.sum() * 0.5**2, 1)
    assert (values[2:6, 2:6] > 0).all() and values.astype(bool).sum() == 16
    outside = np.concatenate([x, np.full((5_000, 2), np.nan)])
    np.testing.assert_allclose(plots._histogram(outside, edges), values / 2)


def test_density_has_its_first_axis_across_and_its_second_up():
    rng = np.random.default_rng(0)
    corner = np.array([0.5, -0.5]) + 0.1 * rng.standard_normal((4_000, 2))
    exact = np.array([[1.0, 1.0], [-1.0, -1.0]])
    picture = pixels(plots.density({"1 step": corner}, exact, lambda x: np.zeros(len(x))))
    shown = picture[:, : picture.shape[1] // 2]
    bright = np.argwhere((shown[..., :3].astype(int).sum(-1) > 500) & (shown[..., 3] == 255))
    opaque = np.argwhere(shown[..., :3].astype(int).sum(-1) * (shown[..., 3] == 255) < 40)
    centre = (bright.mean(0) - opaque.min(0)) / (opaque.max(0) - opaque.min(0))
    assert centre[0] > 0.6 and centre[1] > 0.6  # rows count downwards: low and right


def test_the_same_numbers_give_the_same_bytes_and_no_figure_stays_open():
    rows = [row(value=v, steps=n, seed=s) for n, v in ((1, 0.5), (16, 0.1)) for s in (0, 1)]
    rows += [row(metric="coverage", better="higher", value=None), row(reference="Gaussian", steps=None)]
    records = [{"step": n, "loss": 1 / n, "flow": None} for n in range(1, 9)]
    x = np.random.default_rng(0).standard_normal((50, 2))
    pictures = {
        "quality": lambda: plots.quality(rows),
        "losses": lambda: plots.curves(records, {"loss": {"": "loss"}, "both": {"a": "loss", "b": "flow"}}),
        "density": lambda: plots.density({"1 step": x, "2 steps": x * math.inf}, x),
        "trajectories": lambda: plots.trajectories({1: np.stack([x, 2 * x]), 2: np.stack([x, x, x])}),
    }
    for name, picture in pictures.items():
        assert picture() == picture(), name
        assert pixels(picture()).any(), name
    if pyplot := sys.modules.get("matplotlib.pyplot"):  # ott imports it; our figures are none of its
        assert not pyplot.get_fignums()


def test_curves_floor_and_expected_numbers_are_drawn_where_they_are(monkeypatch):
    seen = []
    monkeypatch.setattr(plots, "png", lambda figure: seen.extend(figure.axes) or b"")
    values = {1: (0.4, 0.6), 4: (0.2, 0.2)}
    rows = [
        row(value=v, steps=n, seed=s, floor=0.01, expected=0.3 if n == 1 else None)
        for n, seeds in values.items()
        for s, v in enumerate(seeds)
    ]
    plots.quality(rows)
    curve, floor, rings = seen[0].get_lines()
    np.testing.assert_allclose(curve.get_xydata(), [[1, 0.5], [4, 0.2]])
    np.testing.assert_allclose(floor.get_ydata(), 0.01)
    np.testing.assert_allclose(rings.get_xydata(), [[1, 0.3]])
    (band,) = seen[0].collections
    lowest, highest = band.get_paths()[0].get_extents().intervaly
    np.testing.assert_allclose([lowest, highest], [0.2, 0.5 + np.std([0.4, 0.6], ddof=1)])
    assert (seen[0].get_xscale(), seen[0].get_yscale()) == ("log", "log")


def test_curves_against_evaluations_lie_at_what_each_step_count_cost(monkeypatch):
    seen = []
    monkeypatch.setattr(plots, "png", lambda figure: seen.extend(figure.axes) or b"")
    lines = [
        ("one", [row(value=1 / n, steps=n, nfe=n) for n in (1, 4)]),
        ("two", [row(value=2 / n, steps=n, nfe=2 * n + s, seed=s) for n in (1, 4) for s in (0, 1)]),
    ]
    plots.qualities(lines, "nfe")
    drawn = [line.get_xydata().tolist() for line in seen[0].get_lines()[:2]]
    assert drawn == [[[1, 1], [4, 0.25]], [[3, 2], [9, 0.5]]]  # of two seeds the dearer counts
    assert [label.get_text() for label in seen[0].get_xticklabels()] == ["1", "2", "3", "4", "8"]


def test_a_scalar_that_is_no_number_is_left_out(monkeypatch):
    seen = []
    monkeypatch.setattr(plots, "png", lambda figure: seen.extend(figure.axes) or b"")
    records = [{"step": 1, "a": 2.0}, {"step": 2, "a": None}, {"step": 3, "b": 1.0}, {"step": 4, "a": 5.0}]
    plots.curves(records, {"first": {"": "a"}, "both": {"x": "b", "y": "a"}})
    drawn = [[line.get_xydata().tolist() for line in axis.get_lines()] for axis in seen]
    a, b = [[1.0, 2.0], [4.0, 5.0]], [[3.0, 1.0]]
    assert drawn == [[a], [b, a]]
