"""Protocol of model kinds (local, hub, gguf, wheel), and the facts that they give the planner."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pipeline.errors import ManyErrors, UserError
from pipeline.key import Json
from pipeline.stage import Artifact, Draft
from stages.weights.source import TensorSpec


@dataclass(frozen=True, kw_only=True, slots=True)
class SourceFacts:
    """Facts about a model before it is loaded.

    `config`: its config.json, None while unknown. `identity`: identifies its content, None while
    unknown. `bytes`: size of its weight files on disk, None if unknown. `label`: its name for
    people. `tensors`: names, shapes and dtypes of its tensors, None if unknown. `quantization`: the
    quantization_config of its stored weights, None for dense ones. `experts`: how many of each
    layer's experts were left by `modifier=reap`, of whose model these are the facts; else None.
    `blocks`: the block formats of a GGUF file's tensors, by ggml's names; empty for other files.
    `tokenizer` and `chat_template`: whether it has them, None where that is not known yet.
    """

    config: Mapping[str, Any] | None
    identity: str | None
    bytes: int | None
    label: str
    tensors: Mapping[str, TensorSpec] | None = None
    quantization: Mapping[str, Any] | None = None
    experts: int | None = None
    blocks: frozenset[str] = frozenset()
    tokenizer: bool | None = None
    chat_template: bool | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Look:
    """Result of `ModelKind.look`: facts known without loading, problems and warnings.

    `stored_bytes` is the size that the result will have in the store.
    """

    facts: SourceFacts
    problems: tuple[UserError, ...] = ()
    warnings: tuple[str, ...] = ()
    stored_bytes: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Services of the running task for `ModelKind.load`."""

    scratch: Path
    progress: Callable[[float, str], None]
    warn: Callable[[str], None]
    reads: Callable[[Iterable[Path]], None]


class ModelKind(Protocol):
    """A source of models; the config group `model` selects one by its kind."""

    def look(self, *, mode: str) -> Look:
        """Find out what can be known without torch, and in mode plan without network."""
        ...

    def semantics(self) -> Json:
        """Part of the key: what can change the result beside the identity."""
        ...

    def plan_config(self) -> Mapping[str, Any] | None:
        """config.json for mode plan if `look` did not give it; may import torch."""
        ...

    def renew(self, stored: Artifact, identity: str) -> None:
        """Make the files that a stored result refers to available again."""
        ...

    def load(self, draft: Draft, identity: str | None, work: Work) -> str:
        """Write source.json and the small files; returns the identity of the loaded model.

        `identity` is the one that `look` gave. Raises UserError if the model cannot be loaded.
        """
        ...


def each(error: UserError) -> tuple[UserError, ...]:
    """The single errors in an error that may hold several."""
    return error.errors if isinstance(error, ManyErrors) else (error,)
