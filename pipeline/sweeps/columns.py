"""Columns of the leaderboard: differing overrides, then the metrics that at least one job has."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report import units
from pipeline.report.section import metrics

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column; `numeric` ones sort by `value`, the others by their text.

    `brief` ones are in the terminal's table too.
    """

    title: str
    value: Callable[[Row], Any]
    show: Callable[[Any], str]
    numeric: bool = True
    brief: bool = False


def columns(sweep: Mapping[str, Any]) -> list[Column]:
    """The overrides that the jobs differ in, then the numbers that at least one job has."""
    overrides = [
        Column(title=key, value=_override(key), show=text, numeric=False, brief=True)
        for key in sweep["differing"]["by_override"]
    ]
    rows = sweep["jobs"]
    shown = [column for column in _numbers(sweep) if any(column.value(r) is not None for r in rows)]
    return [*overrides, *shown]


def _numbers(sweep: Mapping[str, Any]) -> Sequence[Column]:
    known = metrics()
    paths = {metric.path for metric in known}
    return [
        *(Column(title=m.title, value=_field(m.field), show=m.show, brief=m.brief) for m in known),
        *(
            Column(title=each["path"], value=_objective(each["path"]), show=units.number)
            for each in sweep["objective"]
            if each["path"] not in paths
        ),
        Column(title="time", value=_field("seconds"), show=units.duration, brief=True),
        Column(title="built", value=_field("built"), show=text),
        Column(title="reused", value=_field("reused"), show=text),
    ]


def _field(name: str) -> Callable[[Row], Any]:
    return lambda row: row[name]


def _override(key: str) -> Callable[[Row], Any]:
    return lambda row: row["differs"].get(key)


def _objective(path: str) -> Callable[[Row], Any]:
    return lambda row: row["objective"].get(path)


def text(value: Any) -> str:
    """A value as it is, or a dash for None."""
    return units.MISSING if value is None else str(value)
