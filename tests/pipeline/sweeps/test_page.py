"""sweep.html: whole, offline, and what its script does when somebody clicks."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from pipeline.sweeps.page import write_sweep
from pipeline.sweeps.plot import padded, ticks
from tests.pipeline.sweeps.folder import four_schemes, job, plan, result


@pytest.fixture
def page(tmp_path: Path) -> str:
    four_schemes(tmp_path)
    write_sweep(tmp_path)
    return (tmp_path / "sweep.html").read_text()


class Cells(HTMLParser):
    """The texts of the cells of the first table, row by row."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tables = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tables += tag == "table"
        if self.tables == 1 and tag == "tr":
            self.rows.append([])
        if self.tables == 1 and tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.tables == 1 and self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


def test_the_board_has_a_row_a_job_the_best_first(page: str) -> None:
    cells = Cells()
    cells.feed(page)
    head, before, *rows = cells.rows
    assert before[:4] == ["", "original", "", "1.0 kB"] and before[head.index("perplexity")] == "20"
    assert head[:4] == ["job", "status", "scheme", "size"]
    assert [row[0] for row in rows] == ["1", "0", "2", "3", "4"]
    assert rows[0][1:4] == ["ok★", "w8a16", "500 B"]
    assert all(len(row) == len(head) for row in rows)


def test_nothing_comes_from_elsewhere(page: str) -> None:
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert "@import" not in page and "url(" not in page
    assert "<b>odd</b>" not in page and "&lt;b&gt;odd" in page


def test_the_best_by_each_measure_is_named_and_marked(page: str) -> None:
    told = re.sub(r"\s+", " ", page)
    assert "Best by each measure: size job 0 (300 B); perplexity job 1 (20.5)." in told
    assert "<strong>300 B</strong>" in page and "<strong>20.5</strong>" in page
    assert page.count('<a href="1/report.html">') == 2  # its row, and the list of folders
    assert "3/report.html" not in page  # it failed without a result


def test_a_front_of_one_job_is_no_line(tmp_path: Path) -> None:
    plan(tmp_path, [("a=1",), ("a=2",)])
    job(tmp_path, 0, ("a=1",), result(9, 1.0))
    job(tmp_path, 1, ("a=2",), result(10, 2.0))
    write_sweep(tmp_path)
    page = (tmp_path / "sweep.html").read_text()
    assert "<polyline" not in page and "no front to draw" in page


def test_the_plot_is_drawn_for_wide_and_narrow_pages(page: str) -> None:
    assert page.count("<svg") == 2
    assert page.count("<circle") == 2 * 3
    assert 'class="plot wide"' in page and 'class="plot narrow"' in page


def test_a_sweep_of_one_job_has_no_plot(tmp_path: Path) -> None:
    plan(tmp_path, [("a=1",)])
    job(tmp_path, 0, ("a=1",), result(9, 1.0))
    write_sweep(tmp_path)
    assert "<svg" not in (tmp_path / "sweep.html").read_text()


@pytest.mark.parametrize("values", [[3.0], [0.0], [5.0, 5.0], [1e8, 3.2e8], [20.1, 20.2, 21.0]])
def test_axis_marks_are_few_round_and_inside(values: list[float]) -> None:
    least, most = padded(values)
    marks = ticks(least, most, count=5)
    assert least < min(values) and max(values) < most
    assert 2 <= len(marks) <= 6
    assert all(least <= mark <= most for mark in marks)
