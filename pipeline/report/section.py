"""Report sections: what a stage contributes to reports, summaries, leaderboards and trackers.

The framework renders whatever is registered under the entry points `presswork.reports`, in the
order that the sections give. It knows nothing of the results that they show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import UserError
from pipeline.nested import number_at
from pipeline.registry import Registry
from pipeline.report import units

if TYPE_CHECKING:
    from markupsafe import Markup
    from rich.console import RenderableType

Result = Mapping[str, Any]
"""The content of result.json."""

Config = Mapping[str, Any]
"""The resolved config of a run: plain data."""

Direction = Literal["minimize", "maximize"]
Role = Literal["cost", "quality"]

MIDDLE = 500
"""Sections of a lower `order` stand before the page's times and graph, the others after them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One line of the before/after table."""

    what: str
    before: str = ""
    after: str = ""
    change: str = ""

    @classmethod
    def of(
        cls,
        what: str,
        before: float | None,
        after: float | None,
        show: Callable[[float | None], str] = units.number,
        change: Callable[[float | None, float | None], str] | None = None,
    ) -> Row:
        """Show a number before and after, and by `change` what became of it."""
        became = change(before, after) if change else ""
        return cls(what=what, before=show(before), after=show(after), change=became)


@dataclass(frozen=True, kw_only=True, slots=True)
class Metric:
    """A number of result.json: a column of the leaderboard, which may also be an axis of its plot.

    `path` is where it is (`eval.accuracy.compressed`) and `original` where its value before the
    run is, if there is one; `compute` takes the place of `path` where the number has to be worked
    out. `field` is its name in the jobs of sweep.json, `title` the column's heading, and `name`
    what to call it in a sentence (the title, unless given). `direction` says which way is better.

    The plot has the first metric of role `cost` across. Its other axis, which also ranks the jobs,
    is the one of role `quality` that most jobs have. `brief` metrics are in the terminal as well.
    """

    field: str
    path: str
    title: str
    name: str = ""
    direction: Direction = "minimize"
    role: Role | None = None
    original: str = ""
    show: Callable[[float | None], str] = units.number
    brief: bool = False
    compute: Callable[[Result], float | None] | None = None

    def __post_init__(self) -> None:
        if self.field in JOB_FIELDS:
            raise UserError(
                f"the metric {self.title!r} has the field {self.field!r}, which sweep.json has",
                remedy="give it another name",
            )

    @property
    def label(self) -> str:
        """What to call it in a sentence."""
        return self.name or self.title

    def of(self, result: Result) -> float | None:
        """Its value in a result; None if the result has none."""
        return self.compute(result) if self.compute else number_at(result, self.path)

    def better(self, one: float, other: float) -> bool:
        """Whether `one` is strictly better than `other`."""
        return one < other if self.direction == "minimize" else one > other


@dataclass(frozen=True, kw_only=True, slots=True)
class Study:
    """The report of a mode that builds the nodes of one kind and shows what they measured.

    `collect` turns the JSON results of all nodes into one, `page` (of that and the config) into
    HTML, and `table` into what the terminal prints. `remedy` is told where the graph has no such
    node.
    """

    collect: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]
    page: Callable[[Mapping[str, Any], Mapping[str, Any]], str]
    table: Callable[[Mapping[str, Any]], RenderableType]
    missing: str
    remedy: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """What reports show of one kind of result. All but `order` may be left out.

    `lists` and `mappings` name the parts of result.json that stages fill, there and empty if none
    does; all numbers of a mapping with a metric go to trackers. `finish` may change the result
    once all of it is merged.

    Functions of the result: `rows` of the before/after table; `alerts` to read first, as
    (kind, text); `limits`, sentences on what the numbers do not say; `summary`, what the terminal
    prints; and as markup `header` (below the page's title), `page` (a part of the page: the macro
    `fold` of fold.html gives it a heading to open and close it by) and `scripts` (after all
    sections). `css` is added to the page's. `graph_note` explains a mark in the picture of the
    graph.

    Functions of the result and the config: `headline`, what was made from what, as (name, value);
    `verdict`, phrases that together say what came out of it. `column` is one of `mode=ls`: its
    heading, and its text for a result.

    Where the metrics are measured by one kind of stage, `measured_by` names it, and
    `unmeasured` says what to choose where a sweep wants them and its graph has none.
    """

    order: int
    lists: tuple[str, ...] = ()
    mappings: tuple[str, ...] = ()
    metrics: tuple[Metric, ...] = ()
    finish: Callable[[dict[str, Any]], None] | None = None
    rows: Callable[[Result], Sequence[Row]] | None = None
    alerts: Callable[[Result], Sequence[tuple[str, str]]] | None = None
    limits: Callable[[Result], Sequence[str]] | None = None
    summary: Callable[[Result], Sequence[RenderableType]] | None = None
    headline: Callable[[Result, Config], Sequence[tuple[str, str]]] | None = None
    verdict: Callable[[Result, Config], Sequence[str]] | None = None
    header: Callable[[Result], Markup] | None = None
    page: Callable[[Result], Markup] | None = None
    scripts: Callable[[Result], Markup] | None = None
    css: str = ""
    graph_note: str = ""
    study: Study | None = None
    column: tuple[str, Callable[[Result], str]] | None = None
    measured_by: str = ""
    unmeasured: str = ""

    def __post_init__(self) -> None:
        for name in (*self.lists, *self.mappings):
            if name in RESULT_FIELDS:
                raise UserError(
                    f"a report section declares {name!r}, which result.json has",
                    remedy="give that part of the result another name",
                )

    @property
    def measured(self) -> tuple[str, ...]:
        """The mappings that metrics point into."""
        roots = {metric.path.partition(".")[0] for metric in self.metrics}
        return tuple(name for name in self.mappings if name in roots)


RESULT_FIELDS = frozenset(
    "schema status checkpoint error resume command started seconds nodes fallbacks warnings "
    "estimates not_checked timings reuse versions".split()
)
"""The parts of result.json that the framework writes."""

JOB_FIELDS = frozenset(
    "number status error overrides differs folder report checkpoint started seconds built reused "
    "quality objective front".split()
)
"""The fields of a job in sweep.json that the framework writes."""


def sections() -> tuple[Section, ...]:
    """All registered sections by `order`. Raises UserError where one cannot be imported."""
    registry = Registry.load()
    return tuple(
        sorted(
            (registry.get("report", name) for name in registry.kinds("report")),
            key=lambda section: section.order,
        )
    )


def metrics() -> tuple[Metric, ...]:
    """The metrics of all sections, in the order of the leaderboard's columns."""
    return tuple(metric for section in sections() for metric in section.metrics)


def cost_metric() -> Metric | None:
    """The metric across the plot of a sweep."""
    return next((metric for metric in metrics() if metric.role == "cost"), None)


def quality_metrics() -> tuple[Metric, ...]:
    """The metrics that can rank the jobs of a sweep, the preferred first."""
    return tuple(metric for metric in metrics() if metric.role == "quality")


def example() -> str:
    """The path of a number that a sweep is likely to optimize, for messages."""
    return next((metric.path for metric in (*quality_metrics(), *metrics())), "seconds")
