"""The site of a stage that makes a blueprint."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from tests.stages.calibrate.fakes import FakeArtifact


@dataclass(frozen=True, kw_only=True, slots=True)
class Facts:
    config: dict[str, Any] | None
    tensors: Any = None


@dataclass
class FakeSite:
    """What the framework shows of a site."""

    source: FakeArtifact | None = None
    stored: FakeArtifact | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    name: str = "site"
    mode: str = "run"

    def artifact(self, name: str) -> FakeArtifact | None:
        assert name == "source"
        return self.source

    def prepare(self) -> None: ...

    def own(self, stage: object = None) -> FakeArtifact | None:
        del stage
        return self.stored
