"""Stage `tasks`: the scores of original and compressed model side by side, with uncertainty."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any, ClassVar

from pipeline.key import Json
from pipeline.stage import Estimate, Site, Stage, Survey, Task

MAIN = ("acc_norm", "acc", "exact_match")
"""The metric that stands for a task: the first of these that it has, or else its first."""

Scores = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class TasksConfig:
    """Nothing: everything comes with the scores."""


@dataclass(frozen=True, eq=False)
class Tasks(Stage):
    """Makes `tasks.json`, and the section `tasks` of result.json.

    Inputs `original` and `compressed` are results of `scores` with the same config.
    """

    kind: ClassVar[str] = "tasks"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = TasksConfig

    def survey(self, site: Site) -> Survey:
        del site
        return Survey(estimates={None: Estimate(bytes=4096)})

    def run(self, task: Task) -> None:
        before, after = (
            task.inputs[name].json("scores.json") for name in ("original", "compressed")
        )
        result = compared(before, after)
        task.outputs["out"].write_json("tasks.json", result)
        task.outputs["out"].meta["result"] = {"tasks": result}


def compared(before: Scores, after: Scores) -> dict[str, Json]:
    """Both models' scores by task and metric, and the mean of the tasks' main metrics.

    `difference` is compressed minus original. Its `error` is the standard error of the mean of
    the documents' differences: both models answer the same documents, so that it is smaller than
    the errors of the two scores. null where a metric is no mean over documents.
    """
    scores: dict[str, Any] = {}
    for name, task in after.items():
        if name not in before:
            continue
        known = before[name]["metrics"]
        metrics = {m: _pair(known[m], value) for m, value in task["metrics"].items() if m in known}
        scores[name] = {
            "main": main_metric(metrics),
            "samples": task["samples"],
            "shots": task["shots"],
            "version": task["version"],
            "documents": task["documents"],
            **metrics,
        }
    return {"scores": scores, "mean": _mean(list(scores.values()))}


def main_metric(metrics: Mapping[str, Any]) -> str:
    """The name of the metric that stands for a task."""
    for wanted in MAIN:
        for name in metrics:
            if name == wanted or (name.startswith(f"{wanted}_") and wanted == "exact_match"):
                return name
    return next(iter(metrics))


def _pair(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "original": before["value"],
        "original_error": before["error"],
        "compressed": after["value"],
        "compressed_error": after["error"],
        "difference": after["value"] - before["value"],
        "error": paired_error(before["each"], after["each"]),
        "higher_is_better": after["higher_is_better"],
    }


def paired_error(before: Sequence[float] | None, after: Sequence[float] | None) -> float | None:
    """Standard error of the mean of paired differences; None where they are not pairs, or one."""
    if before is None or after is None or len(before) != len(after) or len(after) < 2:
        return None
    differences = [b - a for a, b in zip(before, after, strict=True)]
    mean = sum(differences) / len(differences)
    spread = sum((value - mean) ** 2 for value in differences) / (len(differences) - 1)
    return sqrt(spread / len(differences))


def _mean(tasks: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The mean over tasks of main metrics that are shares, of which more is better; {} for none."""
    mains = [task[task["main"]] for task in tasks]
    shares = [m for m in mains if m["higher_is_better"] and 0 <= m["original"] <= 1]
    if not shares:
        return {}
    count = len(shares)
    errors = [m["error"] for m in shares]
    known = [error for error in errors if error is not None]
    return {
        "original": sum(m["original"] for m in shares) / count,
        "compressed": sum(m["compressed"] for m in shares) / count,
        "difference": sum(m["difference"] for m in shares) / count,
        "error": sqrt(sum(e * e for e in known)) / count if len(known) == count else None,
        "tasks": count,
    }
