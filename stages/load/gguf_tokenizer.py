"""The tokenizer inside a GGUF file, as transformers has it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import TokenizersBackend
from transformers.integrations.ggml import GGUF_TOKENIZER_MAPPING, convert_gguf_tokenizer
from transformers.integrations.gguf import read_gguf_metadata

VOCABULARY = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.scores")
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
FOREIGN = "model_type"  # llama.cpp's word for the kind of vocabulary, not a transformers model type


def tokenizer_of(path: Path, model_type: str) -> Any:
    """The tokenizer of a GGUF file that holds a model of transformers' `model_type`.

    The special tokens are those that the file names by id. (AutoTokenizer, reading the same file,
    takes the beginning-of-sequence token for the end of sequence where the family is llama.)
    Raises KeyError for a model type whose vocabulary transformers cannot convert.
    """
    metadata, _ = read_gguf_metadata(str(path), VOCABULARY)
    sections = {
        section: {
            name: metadata[f"tokenizer.{key}"]
            for key, name in names.items()
            if f"tokenizer.{key}" in metadata
        }
        for section, names in GGUF_TOKENIZER_MAPPING.items()
    }
    vocabulary, settings = sections["tokenizer"], sections["tokenizer_config"]
    backend, extra = convert_gguf_tokenizer(model_type, vocabulary)
    for name in SPECIAL:
        at = settings.pop(f"{name}_id", None)
        settings[name] = None if at is None else vocabulary["tokens"][at]
    settings.pop(FOREIGN, None)
    told = {name: value for name, value in {**extra, **settings}.items() if value is not None}
    return TokenizersBackend(tokenizer_object=backend, **told)
