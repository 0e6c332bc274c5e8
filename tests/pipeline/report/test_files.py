"""The files of a run: report.html is whole, offline and safe; it can be made again."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.report.files import read_result, rebuild, write_reports
from tests.pipeline.report.sample import node, sample_run

_VOID = {"meta", "br", "link", "img", "input", "hr"}


class Page(HTMLParser):
    """Open tags, their balance, and every address that the page refers to."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def page(tmp_path: Path) -> tuple[str, Page]:
    write_reports(sample_run(tmp_path))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    parsed = Page()
    parsed.feed(text)
    return text, parsed


def test_the_page_is_well_formed_and_refers_to_nothing_outside(page: tuple[str, Page]) -> None:
    text, parsed = page
    assert parsed.open == []
    assert parsed.addresses == ["checkpoint/", "result.json", "config.yaml", "run.log"]  # beside it
    assert "url(" not in text and "@import" not in text


def test_what_a_model_generated_cannot_become_markup(page: tuple[str, Page]) -> None:
    text, parsed = page
    assert (
        parsed.tags.count("script") == 3
    )  # the page's own: its data, what shows a cell, what folds
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_warnings_and_fallbacks_stand_before_everything_else(page: tuple[str, Page]) -> None:
    text, _ = page
    assert 0 < text.index("Gram matrix singular") < text.index("Before and after")
    assert text.index("91 % of the disk") < text.index("Before and after")


def test_every_layer_has_a_cell_that_says_its_error(page: tuple[str, Page]) -> None:
    text, _ = page
    titles = re.findall(r"<title>(model\.layers\.\d+\.[^,]+), relative error", text)
    assert len(set(titles)) == 30 * 7


def test_the_page_stays_small_and_grows_with_depth_only(tmp_path: Path) -> None:
    write_reports(sample_run(tmp_path))
    assert (tmp_path / "report.html").stat().st_size < 300_000
    write_reports(sample_run(tmp_path, layers=128))
    assert (tmp_path / "report.html").stat().st_size < 2_000_000


def test_the_page_can_be_made_again_from_what_the_run_left(tmp_path: Path) -> None:
    run = sample_run(tmp_path)
    write_reports(run)
    (tmp_path / "config.yaml").write_text(
        json.dumps({"defaults": ["base"], **run.config}), encoding="utf-8"
    )
    first = (tmp_path / "report.html").read_bytes()
    (tmp_path / "report.html").unlink()
    assert rebuild(tmp_path).read_bytes() == first


def test_a_failed_run_has_a_page_with_its_error_and_how_to_go_on(tmp_path: Path) -> None:
    run = sample_run(tmp_path, layers=1, status="failed")
    write_reports(run)
    assert "python -m pipeline" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}'])
def test_what_is_not_a_result_of_this_schema_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "result.json").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=r"result\.json"):
        read_result(tmp_path)


def test_a_folder_without_a_result_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(str(tmp_path))):
        rebuild(tmp_path)


def test_the_worst_layers_show_how_weights_and_errors_are_spread(page: tuple[str, Page]) -> None:
    text, _ = page
    shown = re.findall(r'<figure data-distribution="([^"]+)"', text)
    assert len(shown) == 6 and len(set(shown)) == 6
    assert "error of model.layers." in text and "-0.012" in text


def test_only_the_worst_distributions_are_kept_in_the_result(tmp_path: Path) -> None:
    result = write_reports(sample_run(tmp_path))
    errors = [row["relative_error"] for row in result["distributions"]]
    assert len(errors) == 8 and errors == sorted(errors, reverse=True)


def test_the_graph_is_drawn_with_what_was_built_and_what_was_reused(page: tuple[str, Page]) -> None:
    text, _ = page
    assert "30 built" in text and "1 reused" in text
    names = re.findall(r'<text x="75" y="17">(\w+)', text)
    assert names.index("load") < names.index("calibrate") < names.index("save")
    assert set(names) >= {"tokens", "propagate", "verify", "generate"}


def test_a_result_of_before_distributions_still_makes_a_page(tmp_path: Path) -> None:
    run = sample_run(tmp_path)
    result = write_reports(run)
    del result["distributions"]
    (tmp_path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    assert "Before and after" in rebuild(tmp_path).read_text(encoding="utf-8")


def test_memory_of_a_gpu_has_a_lane_where_one_was_used(
    page: tuple[str, Page], tmp_path: Path
) -> None:
    assert "GPU" not in page[0].partition("Time and memory")[2].partition("<h2>")[0]
    run = sample_run(tmp_path)
    nodes = tuple(replace(node, peak_device_bytes=7 * 10**9) for node in run.nodes)
    write_reports(replace(run, nodes=nodes))
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    shown = text.partition("Time and memory")[2].partition("<h2>")[0]
    assert "GPU memory" in shown and "up to 7.0 GB" in shown and "7.0 GB on the GPU" in shown


def test_what_was_stored_beside_other_nodes_has_a_lane(tmp_path: Path) -> None:
    run = sample_run(tmp_path)
    # of three nodes one after the other, the first is stored while the second runs
    nodes = tuple(
        node(
            f"compress[{k}]", 2.0, started=1000.0 + 2 * k, stored=(1002.5, 1.25) if not k else None
        )
        for k in range(3)
    )
    beside = {"storing_seconds": 1.25, "waited_seconds": 0.5, "read_ahead_bytes": 7}
    write_reports(replace(run, nodes=nodes, started=1000.0, beside=beside))
    result = read_result(tmp_path)
    assert result["nodes"][0]["stored"] == {"started": 2.5, "seconds": 1.25}
    assert result["nodes"][1]["stored"] is None
    assert result["beside"] == beside
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    shown = text.partition("Time and memory")[2].partition("<h2>")[0]
    assert "compress[0] stored in 1.25 s beside compress[1]<" in shown
    assert "storing" in shown and "beside the steps" in shown


def test_a_page_of_an_earlier_version_can_be_made_again(tmp_path: Path) -> None:
    write_reports(sample_run(tmp_path))
    result = read_result(tmp_path)
    for row in result["nodes"]:
        del row["peak_device_bytes"], row["stored"]
    del result["beside"]
    (tmp_path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    rebuild(tmp_path)
    assert "Time and memory" in (tmp_path / "report.html").read_text(encoding="utf-8")
