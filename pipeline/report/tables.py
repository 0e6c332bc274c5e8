"""What the summary and the page both show of a result: the rows and their words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.report.units import change, number, percent, size

Result = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the before/after table."""

    what: str
    before: str
    after: str
    change: str


def comparison(result: Result) -> list[Row]:
    """Size, bits per weight and quality, before and after; only what the run found out."""
    rows: list[Row] = []
    sizes, quality = result["size"], result["eval"]
    if sizes:
        before, after = sizes["original_bytes"], sizes["compressed_bytes"]
        ratio = f"{before / after:.2f} x smaller" if after else ""
        rows.append(Row(what="size", before=size(before), after=size(after), change=ratio))
        bits = sizes.get("bits_per_weight")
        original = sizes.get("original_bits_per_weight")
        rows.append(
            Row(
                what="bits per weight",
                before=number(original) if original else "",
                after=number(bits),
                change="",
            )
        )
    perplexity = quality.get("perplexity")
    if perplexity:
        before, after = perplexity["original"], perplexity["compressed"]
        rows.append(
            Row(
                what="perplexity",
                before=number(before),
                after=number(after),
                change=change(before, after),
            )
        )
    if quality.get("kl") is not None:
        rows.append(
            Row(what="KL divergence", before="", after=f"{number(quality['kl'])} nat", change="")
        )
    if quality.get("top1_agreement") is not None:
        agreement = percent(quality["top1_agreement"])
        rows.append(Row(what="same top token", before="", after=agreement, change=""))
    return rows


def worst_layers(result: Result, count: int = 5) -> list[Mapping[str, Any]]:
    """The layers with the largest relative error, the worst first."""
    known = [row for row in result["layers"] if row.get("relative_error") is not None]
    return sorted(known, key=lambda row: (-row["relative_error"], row["name"]))[:count]


def generations(result: Result) -> list[Mapping[str, str]]:
    """Prompt, original and compressed continuation of each generation."""
    return list(result["generations"])


def alerts(result: Result) -> list[tuple[str, str]]:
    """What has to be read first: (kind, text) of errors, fallbacks, failed checks, warnings."""
    found: list[tuple[str, str]] = []
    if result.get("error"):
        found.append(("error", result["error"]))
    checks = result["verify"].get("checks", ())
    found += [
        ("failed check", f"{check['name']}: {check.get('detail', '')}")
        for check in checks
        if check.get("ok") is False
    ]
    found += [("fallback", words(item)) for item in result["fallbacks"]]
    found += [("warning", words(item)) for item in result["warnings"]]
    return found


def limits(result: Result) -> list[str]:
    """Which numbers are estimates or small samples, and what could not be checked."""
    told = [words(item) for item in result["estimates"]]
    perplexity = result["eval"].get("perplexity") or {}
    if perplexity.get("tokens"):
        told.append(
            f"perplexity, KL divergence and top-1 agreement are measured on "
            f"{perplexity['tokens']} tokens of {perplexity.get('dataset', 'one dataset')} only"
        )
    if not result["eval"]:
        told.append("quality was not evaluated in this run")
    if result["reuse"]["seconds_saved"]:
        told.append("seconds saved by reuse are those the results took when they were built")
    if any(node["peak_rss_bytes"] for node in result["nodes"]):
        told.append("peak memory is that of the whole process while the node ran")
    return told + [f"not checked: {words(item)}" for item in result["not_checked"]]


def formats(result: Result) -> list[tuple[str, int]]:
    """The formats of the quantized modules and how many there are of each, the most first."""
    counts = Counter(str(row["scheme"]) for row in result["layers"] if row.get("scheme"))
    return counts.most_common()


def distributions(result: Result, count: int = 6) -> list[Mapping[str, Any]]:
    """Weights and errors of the worst layers, with the heights of bars as shares of the highest."""
    return [
        {
            "name": row["name"],
            "relative_error": row["relative_error"],
            "parts": [
                (part, row[part]["edge"], _heights(row[part])) for part in ("weight", "error")
            ],
        }
        for row in result.get("distributions", ())[:count]
    ]


def _heights(found: Mapping[str, Any]) -> list[float]:
    most = max(found["counts"], default=0) or 1
    return [value / most for value in found["counts"]]


def words(item: Any) -> str:
    """An entry of a list in result.json as a line: a text, or a mapping of a few facts."""
    if isinstance(item, Mapping):
        return ", ".join(f"{name} {value}" for name, value in item.items() if value is not None)
    return str(item)
