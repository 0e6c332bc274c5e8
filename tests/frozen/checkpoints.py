"""Whole runs on the tiny models whose bytes are fixed, and digests of the checkpoints they give."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

from tests.jobs import Job

VARYING = ("provenance.json", "README.md")
"""Files with keys (and so library versions) in them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StraightJob(Job):
    """Runs that look at no data; each graph has a store of its own, so that nothing is shared."""

    graph: str

    def overrides(self, *more: str) -> list[str]:
        return [
            "device=cpu",
            "runner.threads=1",
            f"store.dir={self.folder / self.graph}",
            "model=local",
            f"model.path={self.model}",
            f"graph={self.graph}",
            "modifier=rtn",
            "scheme.weights.group_size=32",  # left out by `Job.run`, for each run names a scheme
            "eval=none",
            "save.max_shard_bytes=null",  # the layers' own files, tested for bytes one by one
            *more,
        ]


def digests_of(checkpoint: Path) -> dict[str, str]:
    """File -> digest, of all that is the same whatever libraries are installed."""
    return {
        path.relative_to(checkpoint).as_posix(): hashlib.sha256(_content(path)).hexdigest()[:16]
        for path in sorted(checkpoint.rglob("*"))
        if path.is_file() and path.name not in VARYING
    }


def _content(path: Path) -> bytes:
    if path.name != "config.json":
        return path.read_bytes()
    settings = json.loads(path.read_bytes())
    settings["quantization_config"].pop("version")
    return json.dumps(settings, indent=2).encode()
