"""Parameters, metrics and files of a run for trackers, from result.json and config.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import UserError
from pipeline.nested import leaves
from pipeline.report.files import CONFIG, REPORT, RESULT
from pipeline.report.section import sections

FILES = (RESULT, REPORT, CONFIG)
MEASURED = ("reuse", "timings")
"""The framework's own parts of result.json whose numbers are metrics."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracked:
    """One run. `name` and `group` come from its folder; `group` is shared by a sweep's jobs.

    `params` maps dotted keys of the config to values, `metrics` dotted paths of result.json to
    numbers; `files` are those of the run folder to store with them.
    """

    name: str
    group: str
    status: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    files: tuple[Path, ...]


class Tracker(Protocol):
    """An adapter for a tracker. `log` raises UserError if the tracker cannot be reached."""

    def log(self, run: Tracked) -> None: ...


def tracked(result: Mapping[str, Any], config: Mapping[str, Any], run_dir: Path) -> Tracked:
    """A run folder as trackers see it. The wiring of the graph is left out of the params."""
    run_dir = run_dir.absolute()
    names = [name for section in sections() for name in section.measured]
    parts = {name: result.get(name, {}) for name in (*names, *MEASURED)}
    numbers = {".".join(path): value for path, value in leaves(parts)}
    numbers["seconds"] = result["seconds"]
    params = {name: value for name, value in config.items() if name != "graph"}
    return Tracked(
        name=f"{run_dir.parent.name}/{run_dir.name}",
        group=run_dir.parent.name,
        status=str(result["status"]),
        params={".".join(path): value for path, value in leaves(params)},
        metrics={
            name: float(value)
            for name, value in numbers.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        },
        files=tuple(path for name in FILES if (path := run_dir / name).is_file()),
    )


def demand(module: str, extra: str) -> None:
    """Raise UserError if a tracker's library is not installed, before the run starts."""
    if find_spec(module) is None:
        raise UserError(
            f"tracker={extra} needs the package {module}, which is not installed",
            remedy=f"pip install 'presswork[{extra}]'",
        )
