"""Run folders of earlier commands: status, times, sizes, and the artifacts they refer to."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from pipeline.key import Json
from pipeline.runs.config_file import config_of
from pipeline.store.layout import Layout
from pipeline.store.noted_runs import noted_runs

RECORDS = ("result.json", "plan.json")
"""The files of a run folder whose nodes name the keys of artifacts."""

SENSITIVITY = "sensitivity.json"
"""The result of mode=sensitivity, in the store and in a run folder."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """A run folder. `status` is that of result.json, `measured` or `unfinished`.

    `measured` is a finished mode=sensitivity; `keys` are those of artifacts. `experiment` and
    `model` come from its config, for display; `bytes` is the checkpoint's size; `result` is all of
    result.json, empty without one.
    """

    folder: Path
    status: str
    seconds: float
    built: int
    reused: int
    checkpoint: Path | None
    keys: frozenset[str]
    experiment: str = ""
    model: str = ""
    bytes: int = 0
    result: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sweep:
    """A sweep's folder and its runs."""

    folder: Path
    runs: tuple[Run, ...]


def check_writable(folder: Path) -> None:
    """Raise UserError if nothing can be written into a run folder, before anything is computed."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(
            f"the run folder {folder} cannot be written: {error.strerror or error}",
            remedy="choose another folder with hydra.run.dir=DIR",
        ) from error


def sweeps_of(runs: Iterable[Run]) -> list[Sweep]:
    """The sweeps that some runs belong to: those in whose folder Hydra wrote a multirun.yaml."""
    jobs: dict[Path, list[Run]] = {}
    for run in runs:
        if (run.folder.parent / "multirun.yaml").is_file():
            jobs.setdefault(run.folder.parent, []).append(run)
    return [Sweep(folder=folder, runs=tuple(each)) for folder, each in jobs.items()]


def find_runs(folders: Iterable[Path]) -> Iterator[Run]:
    """The runs below some folders, by path: every folder with a config.yaml."""
    for root in folders:
        for path in sorted(root.rglob("config.yaml")):
            if "checkpoint" not in path.relative_to(root).parts:
                yield read_run(path.parent)


def known_runs(folders: Iterable[Path], layout: Layout) -> Iterator[Run]:
    """The runs below some folders, then those that a store knows to be anywhere else."""
    seen = set[Path]()
    for run in find_runs(folders):
        seen.add(run.folder.resolve())
        yield run
    for folder in noted_runs(layout)[0]:
        if folder.resolve() not in seen:
            yield read_run(folder)


def read_run(folder: Path) -> Run:
    """Read one run folder; a record that is broken counts as missing."""
    records = {name: _json(folder / name) for name in RECORDS}
    result: dict[str, Any] = records["result.json"] or {}
    nodes = result.get("nodes", [])
    hits = sum(node.get("status") == "hit" for node in nodes)
    checkpoint = result.get("checkpoint")
    measured = (folder / SENSITIVITY).is_file()
    config = config_of(folder) or {}
    return Run(
        folder=folder,
        status=str(result.get("status", "measured" if measured else "unfinished")),
        seconds=float(result.get("seconds") or 0.0),
        built=len(nodes) - hits,
        reused=hits,
        checkpoint=Path(checkpoint) if checkpoint else None,
        keys=frozenset(key for record in records.values() for key in _keys(record)),
        experiment=str(config.get("experiment") or ""),
        model=_label(config.get("model")),
        bytes=int(result.get("size", {}).get("compressed_bytes") or 0),
        result=result,
    )


def _keys(record: Any) -> Iterator[str]:
    nodes = record.get("nodes", []) if isinstance(record, dict) else record or []
    for node in nodes:
        yield from node.get("keys", {}).values()


def _label(model: Any) -> str:
    """A short name for a model: the last part of its path or id."""
    named = model if isinstance(model, dict) else {}
    origin = next((named[key] for key in ("path", "id", "name", "package") if named.get(key)), "")
    return Path(str(origin)).name


def _json(path: Path) -> Json:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
