"""The shades of the heat map."""

from __future__ import annotations

from stages.compress.report.layer_heatmap import heat_map


def shades(*bits: float) -> list[float]:
    rows = [{"name": f"model.layers.{i}.mlp.up_proj", "bits": b} for i, b in enumerate(bits)]
    found = heat_map(rows, "bits")
    assert found is not None
    return [cell.strength for cell in found.rows["mlp.up_proj"]]


def test_bookkeeping_bytes_do_not_look_like_another_precision() -> None:
    assert shades(4.25, 4.2502) == [0.5, 0.5]


def test_other_precisions_do() -> None:
    assert shades(4.25, 8.25) == [0.0, 1.0]


def test_errors_are_shaded_by_ratios() -> None:
    errors = (0.001, 0.01, 0.1, 0.0)
    rows = [{"name": f"m.{i}.up_proj", "relative_error": e} for i, e in enumerate(errors)]
    found = heat_map(rows, "relative_error", logarithmic=True)
    assert found is not None
    shown = [cell.strength for cell in found.rows["up_proj"]]
    assert [round(each, 6) for each in shown] == [0.0, 0.5, 1.0, 0.0]
