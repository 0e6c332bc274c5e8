"""Assembly of result.json, the stable, versioned record of a run (schema 1).

schema, status, checkpoint, error, resume, command (as it was given), started, seconds
    nodes       [{name, kind, key, keys, status built|hit, seconds, started, peak_rss_bytes,
                  peak_device_bytes (null where no GPU was used), bytes,
                  stored {started, seconds}: when its results were written, hashed and synced,
                  beside other nodes (null: not by this run),
                  worker: the process that built it (empty where there is but one)}]
    workers     [{name, nodes, busy_seconds, idle_seconds}]: empty where one process did it all
    timings     {kind: {seconds, built, reused}}
    reuse       {hits, seconds_saved}
    passing     {held_bytes, copied_bytes}: transient results in memory at most, copied to the store
    beside      {storing_seconds, waited_seconds, read_ahead_bytes}: work beside the nodes; seconds
                that nodes waited for it
    versions {..}, fallbacks [..], warnings [..], estimates [..], not_checked [..]

and the lists and mappings that the registered report sections declare (pipeline.report.section).
They are there and empty where no stage filled them. `hit` also stands for a node that another
process built meanwhile and for one whose stored result nothing asked for; nodes that nothing needed
and that have no result are left out.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from pipeline.errors import UserError
from pipeline.machine.gpus import driver_version, gpu_of
from pipeline.report.record import NodeRecord, RunRecord
from pipeline.report.section import sections
from pipeline.report.workers import workers


class Conflict(UserError):
    """Two stages gave different values for the same key of result.json."""


def merge(into: dict[str, Any], fragment: Mapping[str, Any], path: str = "") -> None:
    """Merge `fragment` into `into`: dicts by key, lists by concatenation.

    Scalars must be equal; raises Conflict for different ones, or for different types.
    """
    for name, value in fragment.items():
        here = f"{path}.{name}" if path else name
        if isinstance(value, Mapping):
            target = into.setdefault(name, {})
            if not isinstance(target, dict):
                raise Conflict(f"{here} is {target!r} and also a mapping")
            merge(target, value, here)
        elif isinstance(value, list):
            target = into.setdefault(name, [])
            if not isinstance(target, list):
                raise Conflict(f"{here} is {target!r} and also a list")
            target.extend(value)
        elif into.setdefault(name, value) != value:
            raise Conflict(f"{here} is {into[name]!r} and also {value!r}")


DISTRIBUTIONS = (
    "presswork",
    "torch",
    "transformers",
    "compressed-tensors",
    "safetensors",
    "datasets",
    "numpy",
    "scipy",
    "numba",
    "hydra-core",
    "omegaconf",
)


def versions() -> dict[str, str]:
    """Name -> version of presswork, Python, the machine and the libraries that are installed."""
    installed = {"python": platform.python_version(), "platform": platform.platform()}
    for name in DISTRIBUTIONS:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def _gpu(device: str) -> dict[str, str]:
    """Model of the GPU that `device` stands for, and its driver; empty for a CPU."""
    gpu = gpu_of(device)
    if gpu is None:
        return {}
    return {"gpu": f"{gpu.name}, {gpu.architecture}", "driver": driver_version()}


SCHEMA = 1

_LISTS = ("fallbacks", "warnings", "estimates", "not_checked")


def assemble(run: RunRecord) -> dict[str, Any]:
    """All of result.json as plain JSON data.

    The stages' fragments (`meta["result"]` of their artifacts) are merged in graph order: mappings
    by key, lists by concatenation. Raises Conflict where two disagree.
    """
    nodes = tuple(node for node in run.nodes if node.status != "idle" or node.metas)
    shown = sections()
    result: dict[str, Any] = {
        "schema": SCHEMA,
        "status": run.status,
        "checkpoint": str(run.checkpoint) if run.checkpoint else None,
        "error": run.error,
        "resume": run.resume,
        "command": run.command,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(run.started)),
        "seconds": round(run.seconds, 3),
        "nodes": [_node(node, run.started) for node in nodes],
        "workers": [],
        **{name: [] for section in shown for name in section.lists},
        **{name: [] for name in _LISTS},
        **{name: {} for section in shown for name in section.mappings},
        "timings": _timings(nodes),
        "reuse": _reuse(nodes),
        "passing": dict(run.passing),
        "beside": {name: round(value, 3) for name, value in run.beside.items()},
        "versions": {**versions(), **_gpu(str(run.config.get("device", "")))},
    }
    result["workers"] = workers(result["nodes"])
    for node in run.nodes:
        for meta in node.metas:
            merge(result, meta.get("result", {}))
    result["warnings"] = _warnings(run) + result["warnings"]
    for section in shown:
        if section.finish:
            section.finish(result)
    return result


def _node(node: NodeRecord, run_started: float) -> dict[str, Any]:
    built = node.status == "built"
    return {
        "name": node.name,
        "kind": node.kind,
        "key": next(iter(node.keys.values()), ""),
        "keys": dict(node.keys),
        "status": "built" if built else "hit",
        "seconds": round(node.seconds, 4),
        "started": round(max(0.0, node.started - run_started), 4) if built else None,
        "peak_rss_bytes": node.peak_rss_bytes,
        "peak_device_bytes": node.peak_device_bytes,
        "bytes": node.bytes,
        "stored": _stored(node, run_started),
        "worker": node.worker,
    }


def _stored(node: NodeRecord, run_started: float) -> dict[str, float] | None:
    if node.stored is None:
        return None
    started, seconds = node.stored
    return {"started": round(max(0.0, started - run_started), 4), "seconds": round(seconds, 4)}


def _timings(nodes: tuple[NodeRecord, ...]) -> dict[str, dict[str, float]]:
    by_kind: dict[str, dict[str, float]] = {}
    for node in nodes:
        row = by_kind.setdefault(node.kind, {"seconds": 0.0, "built": 0, "reused": 0})
        row["seconds"] = round(row["seconds"] + node.seconds, 4)
        row["built" if node.status == "built" else "reused"] += 1
    return by_kind


def _reuse(nodes: tuple[NodeRecord, ...]) -> dict[str, float]:
    hits = [node for node in nodes if node.status != "built"]
    saved = sum(node.recorded_seconds for node in hits)
    return {"hits": len(hits), "seconds_saved": round(saved, 3)}


def _warnings(run: RunRecord) -> list[str]:
    warnings = list(run.warnings)
    for node in run.nodes:
        for meta in node.metas:
            warnings += [f"{node.name}: {text}" for text in meta.get("warnings", ())]
    return list(dict.fromkeys(warnings))
