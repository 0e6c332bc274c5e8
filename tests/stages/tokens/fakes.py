"""A byte-level tokenizer without training, and a stage run outside the framework."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from pipeline.stage import Task
from stages.tokens.dataset import Dataset
from stages.tokens.stage import Tokens, TokensConfig

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"


@dataclass(frozen=True, slots=True)
class FakeArtifact:
    """A folder as a result in the store."""

    path: Path
    meta: dict[str, Any] = field(default_factory=dict)
    key: str = "fake"

    def file(self, name: str) -> Path:
        return self.path / name

    def json(self, name: str) -> Any:
        return json.loads((self.path / name).read_text())

    def write_json(self, name: str, value: Any) -> None:
        (self.path / name).write_text(json.dumps(value))


def byte_tokenizer(*, bos: bool = False, template: str | None = None) -> PreTrainedTokenizerFast:
    """One token a byte, after the specials <s>, </s> and <pad> (ids 0, 1, 2)."""
    specials = ["<s>", "</s>", "<pad>"]
    names = specials + sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE({name: i for i, name in enumerate(names)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if bos:
        inner.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", 0)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=inner,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        chat_template=template,
    )


def model_artifact(folder: Path, **options: Any) -> FakeArtifact:
    """A `load` result that holds nothing but a tokenizer."""
    byte_tokenizer(**options).save_pretrained(folder / "model")
    return FakeArtifact(folder)


def tokens_of(
    dataset: Dataset, model: FakeArtifact, folder: Path, stage: Tokens | None = None
) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Run the stage, or `stage`; its ids, lengths and meta."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = FakeArtifact(folder)
    (stage or Tokens(TokensConfig(dataset=dataset))).run(
        Task(
            node_name="tokens",
            member=None,
            index=None,
            inputs={"source": model},
            outputs={"out": draft},
            scratch=folder / "scratch",
            progress=lambda fraction, text: None,
            warn=lambda text: None,
            resource=lambda name, make: make(),
        )
    )
    tensors = load_file(folder / "tokens.safetensors")
    return tensors["input_ids"], tensors["lengths"], draft.meta
