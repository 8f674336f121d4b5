"""The file of measurements and the tables made of it."""

import csv
import io
import json
import math

import numpy as np

from flowmaps import measurements
from flowmaps.files import write_whole


def row(**fields):
    """A measurement in which all is fixed but `fields`."""
    return {
        **{"metric": "kl", "value": 0.5, "better": "lower", "floor": 0.01, "expected": None, "num_samples": 100},
        **{"steps": 1, "nfe": 1, "sampler": "composed", "grid": [0.0, 1.0], "guidance": 1.0, "seed": 0},
        **{"guidance_interval": [0.0, 1.0], "against": None},
        **{"seconds": 0.1, "reference": None, "ema": 0.999, "checkpoint": 1000, "config": "c", "method": "lsd"},
        **{"dataset": "checker", "data": "abc", "versions": {"jax": "0"}, "device": "cpu"},
        **fields,
    }


def test_a_repeated_measurement_takes_the_place_of_the_first(tmp_path):
    path = tmp_path / "measurements.jsonl"
    first, second = row(), row(seed=1)
    measurements.record(path, [first, second])
    again = row(value=0.4, seconds=9.0, versions={"jax": "1"})
    assert measurements.record(path, [again]) == [again, second] == measurements.read(path)
    assert len(path.read_text().splitlines()) == 2


def test_every_part_of_the_protocol_tells_measurements_apart(tmp_path):
    others = [row(**{field: "other"}) for field in measurements.PROTOCOL]
    assert len(measurements.record(tmp_path / "m.jsonl", [row(), *others])) == 1 + len(measurements.PROTOCOL)


def test_a_file_is_written_whole_and_leaves_nothing_beside_it(tmp_path):
    path = tmp_path / "new" / "file.bin"
    for content in (b"\x00\xff", "text"):
        write_whole(path, content)
    assert path.read_text() == "text"
    assert list(path.parent.iterdir()) == [path]


def test_csv_has_the_values_of_the_lines():
    rows = [row(value=0.1 + 0.2), row(seed=1, value=None), row(reference="a Gaussian, per class", steps=None)]
    read = list(csv.DictReader(io.StringIO(measurements.as_csv(rows))))
    assert [list(line) for line in read] == [list(measurements.COLUMNS)] * 3
    for line, original in zip(read, rows, strict=True):
        assert line == {name: "" if original[name] is None else str(original[name]) for name in measurements.COLUMNS}


def test_a_table_has_a_column_for_each_step_count_the_floor_and_the_reference_models():
    rows = [
        row(metric="fd", value=2.0, steps=1, floor=0.5),
        row(metric="fd", value=4.0, steps=1, seed=1, floor=0.7),
        row(metric="fd", value=1.23456, steps=16, nfe=32, expected=1.2, floor=0.6),
        row(metric="coverage", better="higher", value=0.5, steps=16, nfe=32, floor=0.97, num_samples=50),
        row(metric="fd", value=3.07, steps=None, sampler=None, checkpoint=None, reference="Gaussian"),
    ]
    (table,) = measurements.tables(rows)
    assert table.title == "checkpoint 1,000 · average 0.999 · composed · 2 seeds"
    assert table.header == ["steps", "1", "16", "floor", "Gaussian"]
    assert table.body == [
        ["fd ↓", "3 ±1", "1.23", "0.6", "3.07"],
        ["  expected", "", "1.2", "", ""],
        ["coverage ↑", "", "0.5", "0.97", ""],
        ["evaluations", "1", "32", "", ""],
    ]
    assert table.note == "100 samples (fd) · 50 samples (coverage) · seeds 0, 1 · data checker abc"


def test_tables_are_apart_by_checkpoint_average_sampler_and_guidance():
    rows = [row(), row(checkpoint=2000), row(ema=None), row(sampler="one_step"), row(guidance=2.0), row(seed=1)]
    titles = [table.title for table in measurements.tables(rows)]
    assert titles == [
        "checkpoint 1,000 · average 0.999 · composed · 2 seeds",
        "checkpoint 2,000 · average 0.999 · composed",
        "checkpoint 1,000 · raw weights · composed",
        "checkpoint 1,000 · average 0.999 · one_step",
        "checkpoint 1,000 · average 0.999 · composed · guidance 2",
    ]
    groups = measurements.groups([row(), row(sampler="one_step")])
    assert measurements.labels(groups) == ["composed", "one_step"]


def test_a_table_as_text_is_aligned():
    table = measurements.Table("title", "note", ["steps", "1", "2"], [["kl", "0.5", "12"], ["w2", "", "3"]])
    assert measurements.as_text(table) == "title\nsteps    1   2\nkl     0.5  12\nw2           3\nnote"


def test_spread_is_the_mean_and_the_deviation_of_a_sample():
    mean, deviation = measurements.spread([row(value=v) for v in (1.0, 2.0, 6.0)])
    np.testing.assert_allclose([mean, deviation], [3.0, np.sqrt(7.0)])
    assert measurements.spread([row(value=2.0)]) == (2.0, 0.0)
    assert math.isnan(measurements.spread([row(value=None), row()])[0])


def test_lines_are_strict_json(tmp_path):
    measurements.record(tmp_path / "m.jsonl", [row(value=None)])
    assert json.loads((tmp_path / "m.jsonl").read_text(), parse_constant=lambda _: 1 / 0)["value"] is None


def test_numbers_have_three_digits():
    given = (0.0123456, 12.3456, 1234.5, 0.0, math.nan, 1e-9)
    assert [measurements.number(n) for n in given] == ["0.0123", "12.3", "1,234", "0", "nan", "1e-09"]
