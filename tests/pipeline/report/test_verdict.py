"""The verdict and the headline of a run: size, loss beside the usual range, checks, names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.report.html import render
from pipeline.report.result import assemble
from pipeline.report.tables import comparison, verdict
from stages.compress.report.headline import headline
from stages.eval.usual_loss import beside, usual
from tests.pipeline.report.sample import sample_run

INT8 = {"input_activations": {"num_bits": 8}}


@pytest.fixture(scope="module")
def run() -> Any:
    return sample_run(Path("run"), layers=2)


def test_the_verdict_is_one_line_of_size_loss_and_checks(run: Any) -> None:
    assert verdict(assemble(run), run.config) == (
        "2.39 x smaller (269.1 MB to 112.4 MB); perplexity +6.3 % ± 0.6 % on pydoc, to be seen "
        "beside +9 to +31 % on another text, WikiText-2, for 4-bit weights in a model as small as "
        "this; all 2 checks passed."
    )
    result = assemble(run)
    perplexity = {**result["eval"]["perplexity"], "dataset": "wiki.valid.raw"}
    judged = verdict({**result, "eval": {**result["eval"], "perplexity": perplexity}}, run.config)
    assert judged == (
        "2.39 x smaller (269.1 MB to 112.4 MB); perplexity +6.3 % ± 0.6 % on wiki.valid.raw, less "
        "than is usual for 4-bit weights (+9 to +31 % on WikiText-2 in a model as small as this); "
        "all 2 checks passed."
    )


def test_a_run_without_evaluation_or_checks_says_so(run: Any) -> None:
    result = {**assemble(run), "eval": {}, "verify": {}}
    assert verdict(result, run.config).endswith(
        "quality was not measured; nothing checked what was written."
    )
    failed = {**result, "status": "failed", "error": "no room\n  free some"}
    assert verdict(failed, run.config) == "Not done: no room"


@pytest.mark.parametrize(
    ("bits", "scheme", "name"),
    [
        (8.1, INT8, "8-bit weights and inputs"),
        (8.1, {}, "8-bit weights"),
        (4.5, INT8, "4-bit weights"),
        (
            4.25,
            {"groups": {"a": {"input_activations": {"num_bits": 4}}}},
            "4-bit weights and inputs",
        ),
        (3.1, {"input_activations": None}, "3-bit weights"),
        (2.2, {}, None),
    ],
)
def test_the_usual_range_is_that_of_the_bits_of_weights_and_inputs(
    bits: float, scheme: dict[str, Any], name: str | None
) -> None:
    size = {"bits_per_weight": bits, "whole_bits_per_weight": 9.0}
    found = usual(size, {"scheme": scheme})
    assert (found.name if found else None) == name
    assert usual(size, {"scheme": scheme, "modifier": {"wanda": {"kind": "wanda"}}}) is None


@pytest.mark.parametrize(
    ("change", "stderr", "told"),
    [
        (0.01, 0.001, "less than is usual"),
        (0.01, 0.02, "as is usual"),
        (0.05, None, "as is usual"),
        (0.13, 0.01, "as is usual"),
        (0.2, 0.01, "more than is usual"),
    ],
)
def test_two_standard_errors_are_allowed_on_both_sides(
    change: float, stderr: float | None, told: str
) -> None:
    size = {"bits_per_weight": 4.25, "whole_bits_per_weight": 5.0}
    size |= {"original_bytes": 16_000_000_000, "original_bits_per_weight": 16.0}
    found = usual(size, {})
    assert found is not None
    assert beside(found, size, change, stderr, "WikiText-2") == (
        f"{told} for 4-bit weights (+2 to +12 % on WikiText-2 in models of 7B to 70B)"
    )


def test_the_page_says_what_was_made_of_what_and_how_to_make_it_again(run: Any) -> None:
    result = assemble(run)
    assert headline(result, run.config) == [
        ("model", "org/model-135m"),
        ("scheme", "W4A16 g64 (14 modules)"),
        ("solver", "gptq"),
        ("data", "pydoc, 16 samples of 512 tokens, seed 0"),
    ]
    page = render(result, run.config)
    assert "<h1>org/model-135m" in page and 'href="checkpoint/"' in page
    assert run.command in page and 'data-copy="command"' in page
    local = headline(result, {"model": {"kind": "local", "path": "/a/b"}})
    assert local[0] == ("model", "b")


def test_bits_per_weight_are_told_apart_by_what_they_are_of(run: Any) -> None:
    rows = {row.what: (row.before, row.after) for row in comparison(assemble(run))}
    assert rows["bits per weight, compressed weights"] == ("", "4.252")
    assert rows["bits per weight, whole model"] == ("16", "6.686")
