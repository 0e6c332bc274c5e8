"""Build the tokenizer that a GGUF file describes, at both ends of the range of transformers.

From 5.18.0 on `TokenizersBackend(name_or_path=folder, gguf_file=...)` reads it right. The reader
of 5.17.0 takes the beginning-of-sequence token of the llama family for the end of sequence, and
needs 4.5 s for 49,152 tokens; there the vocabulary goes to the converter below that reader.
"""

from __future__ import annotations

import json
import tempfile
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.version import Version
from tokenizers import Tokenizer
from transformers import TokenizersBackend
from transformers.integrations.gguf import read_gguf_metadata

READS_GGUF = Version("5.18.0")
"""The first release of transformers whose tokenizers read a GGUF file's special tokens by id."""
LINK = "tokenizer.gguf"
VOCABULARY = ("tokenizer.ggml.tokens", "tokenizer.ggml.merges", "tokenizer.ggml.scores")
SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
ENDS = ("add_bos_token", "add_eos_token")
FOREIGN = "model_type"  # the kind of vocabulary in llama.cpp, not a transformers model type


def tokenizer_of(path: Path, model_type: str) -> Any:
    """The tokenizer in a GGUF file that holds a model of transformers' `model_type`.

    The special tokens are those that the file names by id; it has no others. Raises KeyError or
    ValueError for a vocabulary that transformers cannot convert, and for a chat template that is
    no text.
    """
    found = _read(path, model_type)
    if not isinstance(found.chat_template, str | None):
        raise ValueError(f"its chat template is {found.chat_template!r}, which is no text")
    return found


def _read(path: Path, model_type: str) -> Any:
    if Version(version("transformers")) < READS_GGUF:
        return _converted(path, model_type)
    # Alone in a folder: a tokenizer.json beside the file would be taken for the file's own.
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, LINK).symlink_to(path.resolve())
        return _without_strangers(TokenizersBackend(name_or_path=folder, gguf_file=LINK))


def _without_strangers(tokenizer: Any) -> Any:
    """The tokenizer without tokens that the file does not have.

    Byte-level vocabularies are read through GPT2Tokenizer, which adds its own <|endoftext|> where
    it is missing (Llama 3): an id beyond the model's embedding.
    """
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    vocabulary = state["model"]["vocab"]
    known = set(vocabulary) if isinstance(vocabulary, dict) else {token for token, _ in vocabulary}
    kept = [token for token in state["added_tokens"] if token["content"] in known]
    if len(kept) == len(state["added_tokens"]):
        return tokenizer
    state["added_tokens"] = kept
    settings = {name: tokenizer.init_kwargs.get(name) for name in (*SPECIAL, *ENDS)}
    return TokenizersBackend(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        chat_template=tokenizer.chat_template,
        **{name: value for name, value in settings.items() if value is not None},
    )


def _converted(path: Path, model_type: str) -> Any:
    library = import_module("transformers.integrations.ggml")
    metadata, _ = read_gguf_metadata(str(path), VOCABULARY)
    sections = {
        section: {
            name: metadata[f"tokenizer.{key}"]
            for key, name in names.items()
            if f"tokenizer.{key}" in metadata
        }
        for section, names in library.GGUF_TOKENIZER_MAPPING.items()
    }
    vocabulary, settings = sections["tokenizer"], sections["tokenizer_config"]
    backend, extra = library.convert_gguf_tokenizer(model_type, vocabulary)
    for name in SPECIAL:
        at = settings.pop(f"{name}_id", None)
        settings[name] = None if at is None else vocabulary["tokens"][at]
    settings.pop(FOREIGN, None)
    options = {name: value for name, value in {**extra, **settings}.items() if value is not None}
    return TokenizersBackend(tokenizer_object=backend, **options)
