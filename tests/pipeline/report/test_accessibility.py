"""All pages under an accessibility checker: wide and narrow, light and dark, by keyboard alone."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline.report.files import write_reports
from pipeline.sweeps.page import write_sweep
from stages.compress.report.sensitivity import collected, render
from stages.inspect.diff_examination import page as diff_page
from stages.inspect.examination import page as page_of
from tests.pipeline.report.sample import MODULES, sample_run
from tests.pipeline.sweeps.folder import four_schemes

axe = pytest.importorskip("axe_playwright_python.base")

pytestmark = pytest.mark.slow

PAGES = ("report", "failed", "sensitivity", "sweep", "inspect", "diff")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with NAME.html for every name in PAGES."""
    made = tmp_path_factory.mktemp("pages")
    for name, status in (("report", "ok"), ("failed", "failed")):
        write_reports(sample_run(made / name, layers=12, status=status))
        shutil.copy(made / name / "report.html", made / f"{name}.html")
    config = {"model": {"id": "org/name"}, "dataset": {"kind": "pydoc", "num_samples": 8}}
    text = render(collected([measured(k) for k in range(12)]), config)
    (made / "sensitivity.html").write_text(text, encoding="utf-8")
    (made / "inspect.html").write_text(page_of(inspected()), encoding="utf-8")
    (made / "diff.html").write_text(diff_page(compared()), encoding="utf-8")
    four_schemes(made / "jobs")
    write_sweep(made / "jobs")
    shutil.copy(made / "jobs" / "sweep.html", made / "sweep.html")
    return made


def inspected() -> dict[str, Any]:
    """inspect.json of a checkpoint with one kind of module."""
    names = [f"model.layers.{layer}.mlp.up_proj" for layer in range(12)]
    row = {
        **{"name": "model.layers.0-11.mlp.up_proj", "modules": names, "format": "W4A16 g64"},
        **{"layout": "pack-quantized", "group_size": 64, "strategy": "group", "weights": 9_000_000},
        **{"bits_per_weight": 4.25, "inputs": "not quantized", "scale_dtype": "BF16"},
        **{"least": 1e-4, "most": 0.3, "scales": 140_000, "negative": 70_000, "zeros": 900_000},
        **{"empty": [{"value": 0.0, "count": 3}], "zero_points": None},
    }
    told = {"what": "signed scales", "evidence": "50 % are negative", "rows": [row["name"]]}
    return {
        **{"checkpoint": f"/work/{'a-long-name-' * 8}", "architecture": "LlamaForCausalLM"},
        **{"method": "compressed-tensors", "stated_in": "config.json", "bytes": 5_000_000},
        "producers": [{"name": "auto-round", "version": "0.15.1", "evidence": "producer"}],
        "quantized": {"modules": 12, "bits_per_weight": 4.25},
        "rows": [row],
        "dense": [{"name": "model.norm.weight", "tensors": 1, "dtype": "BF16", "bytes": 1152}],
        "conventions": [told],
        "loads": [{"engine": "vLLM", "version": "0.32", "loads": True, "why": "WNA16"}],
        "notes": ["something to read first"],
    }


def compared() -> dict[str, Any]:
    """diff.json of two checkpoints with one tensor that differs."""
    same = {"different": 0, "total": 4096, "largest": 0.0}
    row = {
        **{"name": "model.layers.0.mlp.up_proj.weight", "tensors": ["up"], "worst": "up"},
        **{"formats": ["W4A16 g64", "BF16"], "codes": None, "scales": same, "weights": same},
        **{"largest": 0.0, "relative": 0.0, "output": None},
    }
    other = row | {"weights": same | {"different": 7}, "largest": 0.1, "relative": 0.01}
    return {
        **{"checkpoints": [f"/work/{'a-long-name-' * 8}", "/b"], "methods": ["gptq", None]},
        **{"tolerance": 0.0, "differs": True, "tensors": 2, "different": 1, "statistics": "run"},
        **{"rows": [row, other], "shapes": [], "alone": [["model.norm.weight"], []]},
    }


def measured(layer: int) -> dict[str, Any]:
    """sensitivity.json of one layer."""
    found = {
        "w4": {"relative_error": 0.01 + 0.001 * layer, "bits": 4.25},
        "w8": {"relative_error": 0.00004, "bits": 8.25},
    }
    names = [f"model.layers.{layer}.{module}" for module in MODULES]
    return {
        "layer": f"model.layers.{layer}",
        "labels": {"w4": "W4A16 g64", "w8": "W8A16 g64"},
        "modules": {name: {"elements": 4096, "candidates": found} for name in names},
    }


def faults(page: Any) -> list[str]:
    """What axe finds: rule and the first element that breaks it."""
    script = Path(axe.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    page.evaluate(script)
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
    return [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in found["violations"]]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("name", PAGES)
def test_no_page_breaks_a_rule_of_accessibility(
    browser: Any, folder: Path, name: str, width: int, scheme: str
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("pageerror", lambda error: pytest.fail(str(error)))
    page.goto((folder / f"{name}.html").as_uri())
    assert faults(page) == []
    page.evaluate("document.querySelectorAll('details').forEach((each) => { each.open = true; })")
    cells = page.locator("rect[data-cell]")
    if cells.count():
        cells.first.click()
        assert page.locator("#cell").is_visible()
    assert faults(page) == []
    root = "document.documentElement"
    assert page.evaluate(f"{root}.scrollWidth - {root}.clientWidth") == 0
    page.close()


def test_a_phone_shows_verdict_warnings_and_table_and_folds_the_rest(
    browser: Any, folder: Path
) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto((folder / "report.html").as_uri())
    headings = page.locator("h2").all_inner_texts()
    assert headings[:3] == ["Verdict", "Read first", "Before and after"]
    assert page.locator("details.fold").count() == len(headings) - 3
    assert page.locator("details[open]").count() == 0
    assert page.get_by_text("perplexity +6.3 %").is_visible()
    page.close()


def test_the_keyboard_alone_reaches_folds_cells_and_the_command(browser: Any, folder: Path) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto((folder / "report.html").as_uri())
    seen: list[str] = []
    what = "`${document.activeElement.tagName} ${document.activeElement.textContent.trim()}`"
    for _ in range(60):
        page.keyboard.press("Tab")
        seen.append(str(page.evaluate(what)))
        if seen[-1].startswith("rect"):
            break
    assert seen[0] == "BUTTON Copy" and "A checkpoint/" in seen and "SUMMARY Every layer" in seen
    page.keyboard.press("ArrowRight")
    assert "model.layers.1.self_attn.q_proj" in page.locator("#cell").inner_text()
    page.keyboard.press("End")
    assert "model.layers.11.self_attn.q_proj" in page.locator("#cell").inner_text()
    page.keyboard.press("Tab")  # one stop for the whole map
    assert not str(page.evaluate(what)).startswith("rect")
    page.close()


def test_a_sweep_keeps_its_quality_in_view_on_a_phone(browser: Any, folder: Path) -> None:
    page = browser.new_page(viewport={"width": 390, "height": 900})
    page.goto((folder / "sweep.html").as_uri())
    box = page.locator("tr[data-job='1'] td.ranks").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 390
    assert page.locator("tr.baseline td.ranks").inner_text() == "20"
    page.close()
