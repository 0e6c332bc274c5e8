"""What mode=sensitivity tells of the candidates."""

from __future__ import annotations

from typing import Any

import pytest

from stages.compress.report.sensitivity import collected, render


def content(**damage: float) -> dict[str, Any]:
    """One layer with two modules, each tried in one format."""
    row = {"relative_error": 0.01, "bits": 4.25, **damage}
    modules = {f"layers.0.{name}": {"elements": 64, "candidates": {"w4": row}} for name in "ab"}
    return {"layer": "layers.0", "labels": {"w4": "W4A16 g64"}, "modules": modules}


def test_the_damage_of_a_candidate_is_that_of_all_its_modules() -> None:
    found = collected([content(damage=0.125)])
    assert found["candidates"][0]["damage"] == pytest.approx(0.25)
    page = render(found, {})
    assert '<th scope="col">damage</th>' in page and "<td>0.25</td>" in page


def test_without_a_damage_none_is_told() -> None:
    found = collected([content()])
    assert "damage" not in found["candidates"][0]
    assert "<th>damage</th>" not in render(found, {})
