"""What the load stage asks of a kind of model, and what others learn from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import ManyErrors, UserError
from pipeline.key import Json
from pipeline.stage import Artifact, Draft
from stages.weights.source import TensorSpec

MODEL = "model"
"""The folder of a `load` result that holds the model's small files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFacts:
    """What is known of a model before it is loaded.

    `config`: its config.json, None where that cannot be known yet. `identity`: what its content
    is identified by, None where that cannot be known yet. `bytes`: size of its weight files on
    disk, None where not known. `label`: what to call it, for people. `tensors`: names, shapes and
    dtypes of its tensors, None where not known. `quantization` says how its weights are stored
    quantized: None for dense ones.
    """

    config: Mapping[str, Any] | None
    identity: str | None
    bytes: int | None
    label: str
    tensors: Mapping[str, TensorSpec] | None = None
    quantization: Mapping[str, Any] | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """What a kind of model found out without loading: see `Survey` for problems and warnings.

    `stored_bytes` is what its result will take in the store.
    """

    facts: SourceFacts
    problems: tuple[UserError, ...] = ()
    warnings: tuple[str, ...] = ()
    stored_bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """The services of the running task that a kind of model may need."""

    scratch: Path
    progress: Callable[[float, str], None]
    warn: Callable[[str], None]


class ModelKind(Protocol):
    """A place that models come from; the config group `model` names one by its kind."""

    def look(self, *, mode: str) -> Look:
        """Find out what can be known without torch. Mode plan: without network, too."""
        ...

    def semantics(self) -> Json:
        """What, beside the identity, can change the result: part of the key."""
        ...

    def plan_config(self) -> Mapping[str, Any] | None:
        """config.json, for mode plan, where `look` did not tell it; may import torch."""
        ...

    def renew(self, stored: Artifact, identity: str) -> None:
        """Make sure that the files which a stored result speaks of are within reach again."""
        ...

    def load(self, draft: Draft, identity: str | None, work: Work) -> str:
        """Write source.json and the small files; returns the identity of what was loaded.

        `identity` is what `look` said. Raises UserError where the model cannot be had.
        """
        ...


def each(error: UserError) -> tuple[UserError, ...]:
    """The single mistakes in an error."""
    return error.errors if isinstance(error, ManyErrors) else (error,)
