"""Page of a sweep, sweep.html, and sweep.json from the sweep's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.report.html import environment
from pipeline.report.section import JOB_FIELDS, cost_metric, metrics
from pipeline.report.text_files import write_text
from pipeline.sweeps.columns import Column, columns, text
from pipeline.sweeps.files import PAGE, SWEEP, write_json
from pipeline.sweeps.jobs import read_sweep
from pipeline.sweeps.leaderboard import assemble
from pipeline.sweeps.plot import plots


def render(sweep: Mapping[str, Any]) -> str:
    """The page for the content of sweep.json."""
    shown = columns(sweep)
    env = environment(Path(__file__).parent)
    env.filters |= {"text": text, "split_first": lambda message: message.partition("\n")[::2]}
    page: str = env.get_template("sweep.html").render(
        sweep=sweep,
        columns=shown,
        rows=by_quality(sweep),
        bests={column.title: column.best(sweep["jobs"]) for column in shown},
        baseline=baseline(sweep, shown),
        across=cost_metric(),
        plots=plots(sweep),
        troubled=[job for job in sweep["jobs"] if job["status"] != "ok"],
        configs=sweep["differing"]["by_config"],
    )
    return page


def baseline(sweep: Mapping[str, Any], shown: Sequence[Column]) -> list[str] | None:
    """The cells of the model before the run under the columns; None where nothing is known."""
    if not sweep["original"]:
        return None
    row = {**dict.fromkeys(JOB_FIELDS | {metric.field for metric in metrics()})}
    row |= {"differs": {}, "objective": {}, **sweep["original"]}
    values = [column.value(row) for column in shown]
    return [
        "" if value is None else column.show(value)
        for column, value in zip(shown, values, strict=True)
    ]


def by_quality(sweep: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The jobs, the best first; those without a value last, by number."""
    down = sweep["quality"] and sweep["quality"]["direction"] == "maximize"

    def place(job: Mapping[str, Any]) -> tuple[bool, float, int]:
        value = job["quality"]
        unrated = value is None or job["status"] != "ok"
        return unrated, 0.0 if unrated else -value if down else value, job["number"]

    return sorted(sweep["jobs"], key=place)


def write_sweep(folder: Path) -> dict[str, Any]:
    """Write both files into the sweep's folder; returns the content of sweep.json.

    Raises UserError where the folder holds neither a sweep nor a run.
    """
    sweep = assemble(read_sweep(folder))
    write_json(folder / SWEEP, sweep)
    write_text(folder / PAGE, render(sweep))
    return sweep
