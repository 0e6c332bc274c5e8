"""Convert the metadata of a GGUF file to a transformers config and tensor table."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from pipeline.errors import UserError
from pipeline.outside import PinnedFile
from pipeline.stage import Draft
from stages.load.gguf_file import DTYPES
from stages.load.gguf_names import tensor_table
from stages.load.gguf_tokenizer import tokenizer_of
from stages.load.model_folder import describe
from stages.load.model_kind import Work
from stages.model.artifact_names import MODEL
from stages.model.tokenizer.load import readable
from stages.weights.gguf_finite import check_gguf_finite
from stages.weights.gguf_header import GgufHeader, read_gguf_header
from stages.weights.gguf_source import GgufSource
from stages.weights.source_manifest import SourceFile, SourceManifest

BARE = "bare.gguf"
LONG = frozenset(f"tokenizer.ggml.{name}" for name in ("merges", "scores", "token_type"))
TOKENS = "tokenizer.ggml.tokens"
AS_SAFETENSORS = "give the model as safetensors: model=local or model=hub"


def write_gguf(
    draft: Draft, path: Path, file: SourceFile, *, identity: str, dtype: str, work: Work
) -> None:
    """Write source.json, small files and meta for a GGUF file into a draft.

    Its weights are looked at once: one that is not finite is an error before anything runs.

    `file` is the entry of source.json; `path` is where the file is now.
    """
    header = read_gguf_header(path)
    config = config_of(header, dtype=dtype)
    public = public_config(config)
    tensors = tensor_table(header, config, work)
    check_gguf_finite(
        path,
        tensors,
        dtype=DTYPES[dtype],
        progress=lambda share: work.progress(0.4 + 0.1 * share, "looking for weights not finite"),
    )
    folder = draft.path / MODEL
    folder.mkdir(parents=True, exist_ok=True)
    work.progress(0.5, "converting the tokenizer")
    problem = f"the tokenizer in {path} cannot be converted for {config.model_type!r}"
    with readable(problem, AS_SAFETENSORS):
        tokenizer_of(path, config.model_type).save_pretrained(folder)
    _write(folder / "config.json", public)
    generation = GenerationConfig.from_model_config(config).to_diff_dict()
    _write(folder / "generation_config.json", _public(generation))
    settings = {"dtype": DTYPES[dtype], "architecture": header.architecture, "config": public}
    manifest = SourceManifest(
        kind="gguf", identity=identity, files=(file,), tensors=tensors, settings=settings
    )
    manifest.write(draft)
    pinned = PinnedFile(path, header.state)
    specs = GgufSource.of(pinned, manifest).specs().values()
    describe(draft, identity, public, sum(spec.bytes for spec in specs))


def config_of(header: GgufHeader, *, dtype: str) -> Any:
    """The transformers config that a GGUF file's metadata describes, with `architectures` set.

    Raises UserError for an architecture that transformers cannot load from GGUF.
    """
    path = header.path
    problem = f"{path}: its architecture {header.architecture!r} cannot be read"
    with readable(problem, AS_SAFETENSORS), tempfile.TemporaryDirectory() as folder:
        write_bare(header, Path(folder, BARE))
        config = AutoConfig.from_pretrained(folder, gguf_file=BARE)
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if name is None:
        raise UserError(
            f"{path} holds a {config.model_type!r} model, which generates no text",
            remedy="give a model that transformers has as a causal language model",
        )
    config.architectures = [name]
    config.dtype = getattr(torch, dtype)
    return config


def public_config(config: Any) -> dict[str, Any]:
    """The content of config.json: all fields of a config but those that begin with "_"."""
    return _public(json.loads(config.to_json_string(use_diff=False)))


def write_bare(header: GgufHeader, target: Path) -> None:
    """Write a file with the metadata and tensor list of `header`; its data is a sparse hole.

    The tokens are kept if nothing else tells the size of the vocabulary.
    """
    omitted = LONG
    if f"{header.architecture}.vocab_size" in header.spans:
        omitted = LONG | {TOKENS}
    kept = [span for key, span in header.spans.items() if key not in omitted]
    with open(header.path, "rb") as source, open(target, "wb") as out:
        counts = (header.version, len(header.tensors), len(kept))
        out.write(b"GGUF" + struct.pack("<IQQ", *counts))
        for start, end in (*kept, header.table):
            source.seek(start)
            out.write(source.read(end - start))
        out.truncate(header.size)


def _public(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not name.startswith("_")}


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
