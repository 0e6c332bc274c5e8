"""What a tracker is told about a run, all of it out of result.json and config.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from pipeline.config.references import leaves
from pipeline.errors import UserError
from pipeline.report.files import CONFIG, REPORT, RESULT

FILES = (RESULT, REPORT, CONFIG)
SECTIONS = ("size", "eval", "reuse", "timings")
"""The sections of result.json whose numbers are metrics."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tracked:
    """One run. `name` and `group` come from its folder; `group` is shared by a sweep's jobs.

    `params` maps dotted keys of the config to values, `metrics` dotted paths of result.json to
    numbers; `files` are those of the run folder that are worth keeping with them.
    """

    name: str
    group: str
    status: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    files: tuple[Path, ...]


class Tracker(Protocol):
    """An adapter. `log` raises UserError where the tracker cannot be told."""

    def log(self, run: Tracked) -> None: ...


def tracked(result: Mapping[str, Any], config: Mapping[str, Any], run_dir: Path) -> Tracked:
    """The facts of a run folder. The wiring of the graph is left out of the params."""
    run_dir = run_dir.absolute()
    sections = {name: result.get(name, {}) for name in SECTIONS}
    found = {".".join(path): value for path, value in leaves(sections)}
    found["seconds"] = result["seconds"]
    said = {name: value for name, value in config.items() if name != "graph"}
    return Tracked(
        name=f"{run_dir.parent.name}/{run_dir.name}",
        group=run_dir.parent.name,
        status=str(result["status"]),
        params={".".join(path): value for path, value in leaves(said)},
        metrics={
            name: float(value)
            for name, value in found.items()
            if isinstance(value, int | float) and not isinstance(value, bool)
        },
        files=tuple(path for name in FILES if (path := run_dir / name).is_file()),
    )


def demand(module: str, extra: str) -> None:
    """Raise UserError where a tracker's library is not installed, before a run begins."""
    if find_spec(module) is None:
        raise UserError(
            f"tracker={extra} needs the package {module}, which is not installed",
            remedy=f"pip install 'presswork[{extra}]'",
        )
