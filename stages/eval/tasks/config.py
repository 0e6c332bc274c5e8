"""Config of task scores: which tasks, how many examples and documents, and which engine."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import UserError
from stages.compute.numerics import Numerics, summed

GIVEN = ("pretrained", "model", "tokenizer", "batch_size", "trust_remote_code")
"""Arguments of vLLM in the harness that are not the user's to give here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VllmConfig:
    """vLLM as the engine of task scores, by an interpreter of its own."""

    python: str | None = field(default=None, metadata={"key": False})
    """An interpreter that has vllm and lm-eval; null: transformers computes, in this process."""
    options: dict[str, Any] = field(default_factory=dict)
    """Arguments of vLLM's engine: dtype, max_model_len, gpu_memory_utilization, enforce_eager."""

    def __post_init__(self) -> None:
        if self.python is not None and not self.python.strip():
            raise UserError("python is empty", remedy="give an interpreter, or null")
        given = [name for name in GIVEN if name in self.options]
        if given:
            raise UserError(
                f"options has {', '.join(given)}, which presswork gives itself",
                remedy="leave it out",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoresConfig:
    """Tasks of lm-evaluation-harness and how they are asked; the rest is the harness's default."""

    tasks: list[str] = field(default_factory=list)
    """Names of tasks, groups or tags of the harness or of include_path."""
    include_path: str | None = field(default=None, metadata={"key": False})
    """A folder with tasks of your own (YAML, Python, data); only its content is in keys."""
    num_fewshot: int | None = None
    """Examples before each question; null: as many as the task says."""
    limit: int | None = None
    """Documents of each task, the first so many; null: all."""
    batch_size: int = 4
    """Requests at once; it can affect the order of sums."""
    chat_template: bool = False
    """Ask in the model's chat format."""
    seed: int = 1234
    """Chooses examples where a task draws them."""
    vllm: VllmConfig = field(default_factory=VllmConfig)
    numerics: Numerics = field(default_factory=Numerics, metadata={"key": summed})

    def __post_init__(self) -> None:
        if not self.tasks:
            raise UserError(
                "tasks is empty",
                remedy="say eval.tasks=[arc_easy,hellaswag], or eval=standard for no tasks",
            )
        twice = sorted({name for name in self.tasks if self.tasks.count(name) > 1})
        if twice:
            raise UserError(f"tasks has {', '.join(twice)} twice", remedy="leave one out")
        if not all(name.strip() for name in self.tasks):
            raise UserError("a name of a task is empty", remedy="leave it out")
        for name, least in (("num_fewshot", 0), ("limit", 1), ("batch_size", 1)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"{name} is {value}", remedy=f"give {least} or more")
