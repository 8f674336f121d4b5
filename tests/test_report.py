"""The report: one page with everything in it, that asks nothing of the network."""

import base64
import json
import re
from html.parser import HTMLParser

import pytest
import small_runs
from test_measurements import row

from flowmaps import evaluate, measurements, plots, report, sample
from flowmaps.errors import MissingError


class Page(HTMLParser):
    """The tags with their attributes and the text of a page; every tag that opens must close."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.words, self._open = [], [], []
        self.feed(text)
        assert not self._open

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if data.strip():
            self.words.append(data)

    def pictures(self):
        sources = [attributes["src"] for tag, attributes in self.tags if tag == "img"]
        return [base64.b64decode(s.removeprefix("data:image/png;base64,"), validate=True) for s in sources]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on the plane with all that belongs to it."""
    directory = tmp_path_factory.mktemp("runs") / "lsd_checker"
    config = small_runs.plane()
    config.eval.update(expected={"sliced_w2/1": 0.125}, expected_at=10)
    small_runs.save(config, directory)
    evaluate.run(config, directory)
    sample.run(config, directory)
    assert report.write(directory) == directory / "report.html"
    return directory


def test_every_picture_is_in_the_page(run):
    rows = measurements.read(run / "eval" / "measurements.jsonl")
    records = report.read_lines(run / "metrics.jsonl")
    assert Page((run / "report.html").read_text()).pictures() == [
        plots.quality(rows),
        (run / "samples" / "grid.png").read_bytes(),
        (run / "samples" / "trajectories.png").read_bytes(),
        plots.curves(records, {name: {"": name} for name in ("loss", "flow", "grad_norm")}),
    ]


def test_the_page_refers_to_nothing_outside(run):
    text = (run / "report.html").read_text()
    page = Page(text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base", "a"})
    for _, attributes in page.tags:
        assert attributes.keys().isdisjoint({"href", "srcset", "style"})
        assert attributes.get("src", "data:").startswith("data:")
    assert not re.search(r"https?:|url\(|@import|//", re.sub(r"base64,[^\"]*", "", text))


def test_numbers_floors_and_expected_values_are_in_its_tables(run):
    words = Page((run / "report.html").read_text()).words
    (table,) = measurements.tables(measurements.read(run / "eval" / "measurements.jsonl"))
    cells = [cell for line in (table.header, *table.body) for cell in line if cell]
    assert "0.125" in cells and table.header[-1] == "floor"
    start = words.index(table.title) + 1
    assert words[start : start + len(cells)] == cells
    assert words[start + len(cells)] == table.note


def test_the_page_tells_method_data_length_and_machine(run):
    page = Page((run / "report.html").read_text())
    versions = json.loads((run / "environment.json").read_text())["versions"]
    (lead,) = (word for word in page.words if word.startswith("lsd on checker"))
    assert "10 of 10 steps" in lead and "8 x cpu" in lead and f"jax {versions['jax']}" in lead
    assert page.words.count("lsd_checker") == 2  # the title and the heading
    folded = page.words[page.words.index("Config") + 1]
    assert 'method.name = "lsd"' in folded and "eval.expected.sliced_w2/1 = 0.125" in folded


def test_it_is_written_the_same_twice(run):
    before = (run / "report.html").read_bytes()
    report.write(run)
    assert (run / "report.html").read_bytes() == before


def test_what_a_run_has_not_made_yet_is_left_out(tmp_path):
    config = {"method": {"name": "lsd"}, "data": {"name": "checker"}, "train": {"steps": 5, "batch_size": 8}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    page = Page(report.write(tmp_path).read_text())
    assert len(page.pictures()) == 1
    assert [tag for tag, _ in page.tags if tag in ("h2", "table")] == ["h2", "h2"]
    with pytest.raises(MissingError, match=r"no run in .*--mode=train"):
        report.write(tmp_path / "nothing")


def test_quality_during_training_has_a_panel_a_metric_and_a_curve_a_step_count(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "curves", lambda records, panels: drawn.append(panels) or bytes(24))
    report.training([{"step": 1, "learning_rate": 1.0, "loss": 2.0}, {"step": 2, "eval/kl/1": 3.0, "eval/kl/16": 1.0}])
    names = {"loss": {"": "loss"}, "learning_rate": {"": "learning_rate"}}
    assert drawn == [{**names, "kl": {"1 step": "eval/kl/1", "16 steps": "eval/kl/16"}}]


def test_the_curves_of_every_player_come_with_the_norms_and_rates_last(monkeypatch):
    drawn = []
    monkeypatch.setattr(plots, "curves", lambda records, panels: drawn.extend(panels) or bytes(24))
    each = ("flow", "grad_norm", "learning_rate", "loss", "skipped")
    report.training([{"step": 1, **{f"{player}{name}": 1.0 for player in ("", "critic/") for name in each}}])
    terms = ["loss", "flow", "critic/flow", "critic/loss"]
    assert drawn == [*terms, "grad_norm", "learning_rate", "critic/grad_norm", "critic/learning_rate"]


def test_what_looks_like_markup_stays_text(tmp_path):
    name = "<script>alert(1)</script>&"
    config = {"method": {"name": name}, "data": {"name": name}, "train": {"steps": 5, "batch_size": 8}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    measurements.record(tmp_path / "eval" / "measurements.jsonl", [row(metric=name, sampler=name, dataset=name)])
    page = Page(report.write(tmp_path).read_text())
    assert "script" not in {tag for tag, _ in page.tags}
    assert any(name in word for word in page.words)


def test_newer_checkpoints_come_first():
    rows = [row(checkpoint=None, reference="Gaussian"), row(checkpoint=10), row(checkpoint=30), row(checkpoint=20)]
    assert [r["checkpoint"] for r in report.newest_first(rows)] == [30, 20, 10, None]
