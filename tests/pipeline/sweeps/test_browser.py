"""sweep.html in a real browser: sorting, the way from a point to its row, nothing off the side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.sweeps.page import write_sweep
from tests.pipeline.sweeps.folder import four_schemes

pytestmark = pytest.mark.slow


def jobs(page: Any) -> list[str]:
    """The numbers of the jobs, row by row."""
    return list(page.locator("table.board").first.locator("tbody td:first-child").all_inner_texts())


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_click_sorts_and_a_point_leads_to_its_row(
    browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    four_schemes(tmp_path)
    write_sweep(tmp_path)
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto((tmp_path / "sweep.html").as_uri())
    assert jobs(page) == ["1", "0", "2", "3", "4"]
    page.get_by_role("button", name="size").click()
    assert jobs(page) == ["0", "2", "1", "3", "4"]
    page.get_by_role("button", name="size").click()
    assert jobs(page) == ["1", "2", "0", "3", "4"]
    page.get_by_role("button", name="scheme").click()
    assert jobs(page) == ["3", "4", "2", "0", "1"]
    page.locator("circle[data-job='2']:visible").click()
    assert page.locator("tr.chosen td").first.inner_text() == "2"
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") == 0
    page.close()
