"""Whole runs with MX scales by a rule: checked, published, and of less error than without."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.inspect.diff import compare
from tests.jobs import Job

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("modifier", ["rtn", "gptq"])
def test_searched_scales_pass_all_checks_and_err_less(
    tmp_path: Path, tiny_llama: Path, some_text: Path, modifier: str
) -> None:
    job = Job(folder=tmp_path, model=tiny_llama, text=some_text)
    words = ("scheme=mxfp4a16", f"modifier={modifier}")
    error = {}
    for name, rule in (("floor", "floor"), ("searched", "search"), ("usual", "null")):
        result = job.run(name, *words, f"scheme.weights.scale_rule={rule}")
        assert result["verify"]["ok"] is True
        content = compare(
            (tiny_llama, tmp_path / name / "checkpoint"),
            tolerance=0.0,
            grams=None,
            told=lambda *_: None,
        )
        error[name] = sum(row["error"] for row in content["rows"])
    if modifier == "rtn":  # GPTQ trades error of weights for error of outputs
        assert error["searched"] < error["usual"] < error["floor"]
