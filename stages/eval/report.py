"""The report sections of evaluation: perplexity, KL divergence, agreement; and generations.

They show these parts of result.json:

    eval        {perplexity: {original, original_stderr, compressed, compressed_stderr, change,
                              change_stderr, tokens, samples, dataset},
                 kl, kl_stderr, top1_agreement, top1_agreement_stderr}
    generations [{prompt, original, compressed}]

Standard errors are over samples, and null of a single one; `change` is compressed / original - 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from pipeline.report.html import fragment
from pipeline.report.section import Metric, Result, Row, Section
from pipeline.report.units import change, number, percent
from stages.eval.usual_loss import beside, usual

TEXTS = ("prompt", "original", "compressed")


def rows(result: Result) -> list[Row]:
    """Quality before and after: only the measures that the run has."""
    quality = result["eval"]
    found: list[Row] = []
    if perplexity := quality.get("perplexity"):
        pair = perplexity["original"], perplexity["compressed"]
        before, after = (
            give_or_take(perplexity[name], perplexity.get(f"{name}_stderr"))
            for name in ("original", "compressed")
        )
        became = change(*pair) + _more(perplexity.get("change_stderr"), percent)
        found.append(Row(what="perplexity", before=before, after=after, change=became))
    if quality.get("kl") is not None:
        told = give_or_take(quality["kl"], quality.get("kl_stderr"))
        found.append(Row(what="KL divergence", after=f"{told} nat"))
    if quality.get("top1_agreement") is not None:
        more = _more(quality.get("top1_agreement_stderr"), percent)
        found.append(Row(what="same top token", after=percent(quality["top1_agreement"]) + more))
    return found


def give_or_take(value: float | None, stderr: float | None) -> str:
    """A number and its standard error, if that is known: 21.07 ± 0.31."""
    return number(value) + _more(stderr, lambda each: number(each, 2))


def _more(stderr: float | None, show: Callable[[float], str]) -> str:
    return "" if stderr is None else f" ± {show(stderr)}"


def verdict(result: Result, config: Mapping[str, Any]) -> list[str]:
    """The loss of quality with its standard error, beside what is usual for such a scheme."""
    quality = result["eval"]
    perplexity = quality.get("perplexity")
    if not perplexity:
        return [] if result.get("tasks") else ["quality was not measured"]
    before, after = perplexity["original"], perplexity["compressed"]
    off = perplexity.get("change_stderr")
    text = f" on {perplexity['dataset']}" if perplexity.get("dataset") else ""
    told = f"perplexity {change(before, after)}{_more(off, percent)}{text}"
    found = usual(result.get("size", {}), config)
    if found is None or not before:
        return [told]
    return [f"{told}, {beside(found, result['size'], after / before - 1, off, text)}"]


def limits(result: Result) -> list[str]:
    """The size of the sample that quality was measured on, or that it was not measured."""
    if not result["eval"]:
        return [] if result.get("tasks") else ["quality was not evaluated in this run"]
    perplexity = result["eval"].get("perplexity") or {}
    if not perplexity.get("tokens"):
        return []
    told = (
        f"perplexity, KL divergence and top-1 agreement are measured on "
        f"{perplexity['tokens']} tokens of {perplexity.get('dataset', 'one dataset')} only"
    )
    if perplexity.get("change_stderr") is not None:
        told += (
            f"; ± is one standard error over its {perplexity['samples']} samples, that of the "
            "change over their differences"
        )
    return [told]


def generations(result: Result) -> list[Mapping[str, str]]:
    """Prompt, original and compressed continuation of each generation."""
    return list(result["generations"])


def summary(result: Result) -> list[RenderableType]:
    """The beginnings of the generations side by side for the terminal."""
    pairs = generations(result)
    if not pairs:
        return []
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for heading in TEXTS:
        table.add_column(heading, ratio=1 if heading == "prompt" else 2, overflow="fold")
    for pair in pairs:
        table.add_row(*(_short(pair[name]) for name in TEXTS))
    return [table]


def _short(text: str, most: int = 100) -> str:
    line = " ".join(text.split())
    return escape(line if len(line) <= most else f"{line[: most - 3]}...")


def page(result: Result) -> Markup:
    """The generations of both models, pair by pair."""
    return fragment(Path(__file__).parent, "generations.html", generations=generations(result))


QUALITY = Section(
    order=200,
    mappings=("eval",),
    measured_by="eval",
    unmeasured="choose an evaluation: eval=standard",
    metrics=(
        Metric(
            field="perplexity",
            path="eval.perplexity.compressed",
            title="perplexity",
            role="quality",
            original="eval.perplexity.original",
            brief=True,
        ),
        Metric(
            field="kl",
            path="eval.kl",
            title="KL",
            name="KL divergence",
            role="quality",
            show=lambda value: number(value, 3),
        ),
        Metric(
            field="top1_agreement",
            path="eval.top1_agreement",
            title="top-1",
            name="top-1 agreement",
            direction="maximize",
            role="quality",
            show=percent,
        ),
    ),
    rows=rows,
    verdict=verdict,
    limits=limits,
)

GENERATIONS = Section(order=400, lists=("generations",), summary=summary, page=page)
