"""The pages in a real browser: what a click shows, and that nothing runs off the side."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.files import write_reports
from stages.compress.report.sensitivity import collected, render
from tests.pipeline.report.sample import MODULES, sample_run

pytestmark = pytest.mark.slow


def visit(browser: Any, path: Path, width: int = 1280, scheme: str = "light") -> Any:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto(path.as_uri())
    return page


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_click_on_the_heat_map_tells_of_the_module(
    browser: Any, tmp_path: Path, width: int, scheme: str
) -> None:
    write_reports(sample_run(tmp_path))
    page = visit(browser, tmp_path / "report.html", width, scheme)
    opened(page)
    cell = page.locator("rect[data-cell='model.layers.7.self_attn.v_proj']").first
    cell.scroll_into_view_if_needed()
    cell.click()
    told = page.locator("#cell").inner_text()
    assert "model.layers.7.self_attn.v_proj" in told and "fallback" in told and "gptq" in told
    page.locator(".heat svg").nth(2).press("ArrowRight")
    assert "model.layers.8.self_attn.v_proj" in page.locator("#cell").inner_text()
    page.keyboard.press("ArrowDown")
    assert "model.layers.8.self_attn.o_proj" in page.locator("#cell").inner_text()
    shown, pressed = page.locator("#cell").bounding_box(), page.locator("rect:focus").bounding_box()
    assert 0 < shown["y"] - pressed["y"] < 40  # beside what was chosen
    page.keyboard.press("Escape")
    assert not page.locator("#cell").is_visible()
    assert overflow(page) == 0
    page.close()


def opened(page: Any) -> None:
    """Open every fold, as its heading does with the keyboard."""
    closed = page.locator("details:not([open]) > summary")
    for _ in range(closed.count()):
        closed.first.press("Enter")
    assert closed.count() == 0


def overflow(page: Any) -> int:
    """By how many pixels the page is wider than the window."""
    root = "document.documentElement"
    return int(page.evaluate(f"{root}.scrollWidth - {root}.clientWidth"))


def test_the_report_of_128_layers_opens_at_once(browser: Any, tmp_path: Path) -> None:
    write_reports(sample_run(tmp_path, layers=128))
    began = time.perf_counter()
    page = visit(browser, tmp_path / "report.html")
    assert page.locator("rect[data-cell]").count() >= 128 * len(MODULES)
    assert time.perf_counter() - began < 2
    page.close()


def test_sensitivities_switch_between_candidates_and_tell_all_of_a_module(
    browser: Any, tmp_path: Path
) -> None:
    contents = [
        {
            "layer": f"model.layers.{k}",
            "labels": {"w4": "W4A16 g64", "w8": "W8A16 g64"},
            "modules": {
                f"model.layers.{k}.{module}": {
                    "elements": 4096,
                    "candidates": {
                        "w4": {"relative_error": 0.01 + 0.001 * k, "bits": 4.25},
                        "w8": {"relative_error": 0.00004, "bits": 8.25},
                    },
                }
                for module in MODULES
            },
        }
        for k in range(4)
    ]
    path = tmp_path / "sensitivity.html"
    path.write_text(render(collected(contents), {"mode": "sensitivity"}), encoding="utf-8")
    page = visit(browser, path, 390)
    opened(page)
    page.get_by_role("button", name="W8A16 g64").click()
    assert page.locator("[data-shows=w8]").is_visible()
    assert not page.locator("[data-shows=w4]").is_visible()
    page.locator("[data-shows=w8] rect").first.click()
    told = page.locator("#cell").inner_text()
    assert "W4A16 g64" in told and "0.01" in told and "8.25" in told
    assert overflow(page) == 0
    page.close()
