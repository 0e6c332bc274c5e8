"""The columns of the leaderboard: only those that say something in this sweep."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report import units

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column; `numeric` ones sort by `value`, the others by their text."""

    title: str
    value: Callable[[Row], Any]
    show: Callable[[Any], str]
    numeric: bool = True


def columns(sweep: Mapping[str, Any]) -> list[Column]:
    """What the jobs differ in, then the numbers that at least one job has."""
    said = [
        Column(title=key, value=_said(key), show=text, numeric=False)
        for key in sweep["differing"]["by_override"]
    ]
    rows = sweep["jobs"]
    shown = [column for column in _numbers(sweep) if any(column.value(r) is not None for r in rows)]
    return [*said, *shown]


def _numbers(sweep: Mapping[str, Any]) -> Sequence[Column]:
    own = [
        Column(title=each["path"], value=_objective(each["path"]), show=units.number)
        for each in sweep["objective"]
        if each["path"] not in _SHOWN
    ]
    return [
        Column(title="size", value=_field("size_bytes"), show=units.size),
        Column(title="bits/weight", value=_field("bits_per_weight"), show=units.number),
        Column(title="perplexity", value=_field("perplexity"), show=units.number),
        Column(title="KL", value=_field("kl"), show=_three),
        Column(title="top-1", value=_field("top1_agreement"), show=units.percent),
        Column(title="mean error", value=_field("relative_error"), show=_three),
        *own,
        Column(title="time", value=_field("seconds"), show=units.duration),
        Column(title="built", value=_field("built"), show=text),
        Column(title="reused", value=_field("reused"), show=text),
    ]


_SHOWN = (
    "size.compressed_bytes",
    "size.bits_per_weight",
    "eval.perplexity.compressed",
    "eval.kl",
    "eval.top1_agreement",
)


def _field(name: str) -> Callable[[Row], Any]:
    return lambda row: row[name]


def _said(key: str) -> Callable[[Row], Any]:
    return lambda row: row["differs"].get(key)


def _objective(path: str) -> Callable[[Row], Any]:
    return lambda row: row["objective"].get(path)


def _three(value: float | None) -> str:
    return units.number(value, 3)


def text(value: Any) -> str:
    return units.MISSING if value is None else str(value)
