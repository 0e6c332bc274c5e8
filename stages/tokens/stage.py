"""Stage `tokens`: a dataset, tokenized by the model's tokenizer."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from importlib import import_module
from typing import Any, ClassVar

from pipeline.errors import StageFailed, UserError
from pipeline.key import Json, canonical
from pipeline.stage import Estimate, Site, Stage, Survey, Task
from stages.compute.estimates import TOKENIZER_PROCESS
from stages.tokens.dataset import Dataset
from stages.tokens.dataset_files import listed_once
from stages.tokens.requirements import lacking

SECONDS = 5.0
"""Loading a tokenizer library and a small dataset; only for the plan."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TokensConfig:
    """`dataset` is a kind of the registry group `dataset` with its fields."""

    dataset: Any = field(metadata={"component": "dataset"})


@dataclass(frozen=True, eq=False)
class Tokens(Stage):
    """Makes `tokens.safetensors` with `input_ids` int32 [N, T] and `lengths` int32 [N].

    Where only some tokens count also `counted` uint8 [N, T], 1 for those that do.
    """

    kind: ClassVar[str] = "tokens"
    version: ClassVar[int] = 1
    in_driver: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("tokenizers", "transformers")
    also_imports: ClassVar[tuple[str, ...]] = ("stages.tokens.run",)
    Config: ClassVar[type] = TokensConfig
    content: Json = None
    """The identity of the dataset's content, once it is surveyed."""

    @property
    def dataset(self) -> Dataset:
        dataset: Dataset = self.config.dataset
        return dataset

    def survey(self, site: Site) -> Survey:
        """Find what is missing of files and tokenizer now; facts say how many tokens there are."""
        dataset = self.dataset
        try:
            content = canonical(dataset.identity())
        except UserError as error:
            return Survey(problems=(error,))
        missing = lacking(dataset, site.facts.get("source"))
        if missing is not None:
            return Survey(problems=(missing,))
        size = dataset.num_samples * dataset.sequence_length
        return Survey(
            facts={
                "samples": dataset.num_samples,
                "sequence_length": dataset.sequence_length,
                "dataset": dataset.describe(),
            },
            estimates={None: Estimate(bytes=4 * size, memory=TOKENIZER_PROCESS, seconds=SECONDS)},
            settled=replace(self, content=content),
        )

    def semantics(self, member: str | None) -> Json:
        """The dataset's kind and fields, and the identity of its content."""
        dataset = self.dataset
        return {
            "kind": dataset.kind,
            "fields": canonical(dataset),
            "content": self._identity() if self.content is None else self.content,
            **_conversations_revision(dataset),
        }

    def run(self, task: Task) -> None:
        """Tokenize what the key names: files that were replaced since are an error."""
        with listed_once():
            task.reads(self.dataset.files())
            if self.content is not None and self._identity() != self.content:
                raise StageFailed(
                    f"{self.dataset.describe()} has changed since the run began",
                    remedy="run the same command again: it takes the dataset as it is then",
                )
            import_module(*self.also_imports).run(self.config, task)

    def _identity(self) -> Json:
        return canonical(self.dataset.identity())


def _conversations_revision(dataset: Dataset) -> dict[str, Json]:
    """A part of the key of conversations only, raised when results change for them alone.

    1, which was not said: a null `content` did not reach the chat template, so that templates that
    tell a tool call by it left the call out.
    """
    return {"conversations": 2} if getattr(dataset, "messages_column", None) else {}
