"""The report section of task scores: each task's main metric before and after, and their mean.

It shows `tasks` of result.json, made by `stages.eval.tasks.tasks`:

    scores {task: {main, samples, shots, version, documents, METRIC: {original, original_error,
            compressed, compressed_error, difference, error, higher_is_better}}}
    mean   {original, compressed, difference, error, tasks}
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pipeline.report.section import Metric, Result, Row, Section
from pipeline.report.units import number, percent


def rows(result: Result) -> list[Row]:
    """One line a task, and their mean where there are several."""
    tasks = result["tasks"]
    if not tasks:
        return []
    found = [_row(f"{n} ({t['main']})", t[t["main"]]) for n, t in tasks["scores"].items()]
    if tasks["mean"].get("tasks", 0) > 1:
        found.append(_row("mean of the tasks", tasks["mean"]))
    return found


def _row(what: str, score: Mapping[str, Any]) -> Row:
    share = score.get("higher_is_better", True) and 0 <= score["original"] <= 1
    show = percent if share else number
    return Row(
        what=what,
        before=show(score["original"]),
        after=show(score["compressed"]),
        change=_change(score["difference"], score["error"], share),
    )


def _change(difference: float, error: float | None, share: bool) -> str:
    """The difference with its standard error, of shares in percentage points."""
    factor, unit = (100, " points") if share else (1, "")
    told = f"{factor * difference:+.2f}"
    return told + (unit if error is None else f" \N{PLUS-MINUS SIGN} {factor * error:.2f}{unit}")


def verdict(result: Result, config: Mapping[str, Any]) -> list[str]:
    """What the tasks say: the mean difference with its error, or that of the only task."""
    del config
    mean = result["tasks"].get("mean") if result["tasks"] else None
    if not mean:
        return []
    name = "the mean of the tasks" if mean["tasks"] > 1 else "the task"
    return [f"{name} {_change(mean['difference'], mean['error'], True)}"]


def limits(result: Result) -> list[str]:
    """How many documents each score is of, and what the number after the sign means."""
    tasks = result["tasks"]
    if not tasks:
        return []
    counts = ", ".join(
        f"{name} {task['samples']}" + (f" ({task['shots']} shots)" if task["shots"] else "")
        for name, task in tasks["scores"].items()
    )
    return [
        f"documents asked: {counts}; \N{PLUS-MINUS SIGN} is one standard error of the difference, "
        "as both models answer the same documents"
    ]


TASKS = Section(
    order=220,
    mappings=("tasks",),
    measured_by="tasks",
    unmeasured="choose task scores: eval=tasks eval.tasks=[arc_easy]",
    metrics=(
        Metric(
            field="task_score",
            path="tasks.mean.compressed",
            title="tasks",
            name="mean task score",
            direction="maximize",
            role="quality",
            original="tasks.mean.original",
            show=percent,
            brief=True,
        ),
    ),
    rows=rows,
    verdict=verdict,
    limits=limits,
)
