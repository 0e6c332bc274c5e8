"""Columns of the leaderboard: differing overrides, then the metrics that at least one job has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.report import units
from pipeline.report.section import Direction, metrics

Row = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Column:
    """One column; `numeric` ones sort by `value`, the others by their text.

    `brief` ones are in the terminal's table too. `direction` says which way is better, None where
    neither is; `ranks` marks the column that the jobs are ranked by.
    """

    title: str
    value: Callable[[Row], Any]
    show: Callable[[Any], str]
    numeric: bool = True
    brief: bool = False
    direction: Direction | None = None
    ranks: bool = False

    def best(self, rows: Iterable[Row]) -> frozenset[int]:
        """Numbers of the finished jobs with the best value; none where all have the same."""
        values = {r["number"]: self.value(r) for r in rows if r["status"] == "ok"}
        known = {job: value for job, value in values.items() if value is not None}
        if self.direction is None or len(set(known.values())) < 2:
            return frozenset()
        top = (min if self.direction == "minimize" else max)(known.values())
        return frozenset(job for job, value in known.items() if value == top)


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
    ranking = sweep["quality"] or {"path": None, "direction": None}
    paths = {metric.path for metric in known}
    return [
        *(
            Column(
                title=m.title,
                value=_field(m.field),
                show=m.show,
                brief=m.brief,
                direction=ranking["direction"] if m.path == ranking["path"] else m.direction,
                ranks=m.path == ranking["path"],
            )
            for m in known
        ),
        *(
            Column(
                title=each["path"],
                value=_objective(each["path"]),
                show=units.number,
                direction=each["direction"] or None,
                ranks=each["path"] == ranking["path"],
            )
            for each in sweep["objective"]
            if each["path"] not in paths
        ),
        Column(
            title="time",
            value=_field("seconds"),
            show=units.duration,
            brief=True,
            direction="minimize",
        ),
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
