"""From a GGUF file to what transformers knows: config, tokenizer, names and layouts of tensors."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from gguf import GGMLQuantizationType
from gguf.quants import _type_traits
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    GenerationConfig,
)
from transformers import modeling_gguf_pytorch_utils as gguf_loading
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from pipeline.errors import UserError
from pipeline.stage import Draft
from stages.load.folder import describe
from stages.load.gguf_bare import write_bare
from stages.load.gguf_file import DTYPES
from stages.load.gguf_tokenizer import tokenizer_of
from stages.load.source import MODEL, Work
from stages.weights.gguf_header import GgufHeader, GgufTensor, read_gguf_header
from stages.weights.gguf_source import GgufSource
from stages.weights.manifest import SourceFile, SourceManifest

PER_TENSOR = (
    gguf_loading.TensorProcessor,
    gguf_loading.LlamaTensorProcessor,
    gguf_loading.BloomTensorProcessor,
    gguf_loading.MambaTensorProcessor,
    gguf_loading.NemotronTensorProcessor,
    gguf_loading.Gemma2TensorProcessor,
    gguf_loading.Lfm2TensorProcessor,
)
"""Processors that turn one stored tensor into one tensor of the model."""

UNREADABLE = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    NotImplementedError,
)
"""What transformers' and gguf's readers raise on a file that they do not understand."""

LISTED = 5
BARE = "bare.gguf"
PLAIN = frozenset({"F32", "F16"})


def config_of(header: GgufHeader, *, dtype: str) -> Any:
    """The transformers config that a GGUF file's metadata describes, with `architectures` set.

    Raises UserError for an architecture that transformers cannot load from GGUF.
    """
    path = header.path
    try:
        with tempfile.TemporaryDirectory() as folder:
            write_bare(header, Path(folder, BARE))
            config = AutoConfig.from_pretrained(folder, gguf_file=BARE)
    except UNREADABLE as error:
        raise UserError(
            f"{path}: its architecture {header.architecture!r} cannot be read: {error}",
            remedy="give the model as safetensors: model=local or model=hub",
        ) from error
    name = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type)
    if name is None:
        raise UserError(
            f"{path} holds a {config.model_type!r} model, which generates no text",
            remedy="give a model that transformers has as a causal language model",
        )
    config.architectures = [name]
    config.dtype = getattr(torch, dtype)
    return config


def write_gguf(
    draft: Draft, path: Path, file: SourceFile, *, identity: str, dtype: str, work: Work
) -> None:
    """Write a GGUF file's source.json, small files and meta into a draft.

    `file` describes the file as source.json shall name it; `path` is where it is now.
    """
    header = read_gguf_header(path)
    config = config_of(header, dtype=dtype)
    public = public_config(config)
    tensors = tensor_table(header, config, work)
    folder = draft.path / MODEL
    folder.mkdir(parents=True, exist_ok=True)
    work.progress(0.5, "converting the tokenizer")
    try:
        tokenizer_of(path, config.model_type).save_pretrained(folder)
    except UNREADABLE as error:
        raise UserError(
            f"the tokenizer in {path} cannot be converted for {config.model_type!r}: {error}",
            remedy="give the model as safetensors: model=local or model=hub",
        ) from error
    _write(folder / "config.json", public)
    generation = GenerationConfig.from_model_config(config).to_diff_dict()
    _write(folder / "generation_config.json", _public(generation))
    settings = {
        "dtype": DTYPES[dtype],
        "architecture": header.architecture,
        "config": public,
    }
    manifest = SourceManifest(
        kind="gguf",
        identity=identity,
        files=(file,),
        tensors=tensors,
        settings=settings,
    )
    manifest.write(draft)
    specs = GgufSource.of(path, manifest).specs().values()
    describe(draft, identity, public, sum(spec.bytes for spec in specs))


def public_config(config: Any) -> dict[str, Any]:
    """A config as config.json shall say it: complete, without what concerns this process only."""
    return _public(json.loads(config.to_json_string(use_diff=False)))


def tensor_table(header: GgufHeader, config: Any, work: Work) -> dict[str, Any]:
    """What `GgufSource` needs to know of every tensor, by its name in transformers.

    Raises UserError where the file's tensors are not the model's one to one.
    """
    make: Any = gguf_loading.TENSOR_PROCESSORS.get(
        header.architecture, gguf_loading.TensorProcessor
    )
    merged = [name for name in header.tensors if "_exps" in name]
    if make not in PER_TENSOR or merged:
        raise UserError(
            f"{header.path}: GGUF files of the architecture {header.architecture!r} store "
            f"{'experts merged' if merged else 'tensors in another layout'}, which cannot be read "
            "tensor by tensor",
            remedy="give the model as safetensors: model=local or model=hub",
        )
    auto: Any = AutoModelForCausalLM
    with torch.device("meta"):
        model = auto.from_config(config)
    names = gguf_loading.get_gguf_hf_weights_map(model, make(config=config.to_dict()))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    tied = set(model.all_tied_weights_keys) if config.tie_word_embeddings else set()
    _check_names(header, names, set(shapes) - tied, work)
    return {
        names[stored]: _entry(header.path, tensor, shapes[names[stored]])
        for stored, tensor in header.tensors.items()
        if stored in names
    }


def _check_names(
    header: GgufHeader, names: Mapping[str, str], wanted: set[str], work: Work
) -> None:
    unknown = [name for name in header.tensors if name not in names]
    ropes = [name for name in unknown if name.startswith("rope_")]
    if ropes:
        work.warn(
            f"{header.path.name}: {', '.join(ropes)} are not used by transformers; positions "
            "beyond the model's original context may differ from the model that was converted"
        )
    lost = [name for name in unknown if name not in ropes]
    absent = sorted(wanted - {names[name] for name in header.tensors if name in names})
    if lost or absent:
        which = ", ".join((lost or absent)[:LISTED])
        raise UserError(
            f"{header.path}: {len(lost)} tensors have no place in the model and {len(absent)} of "
            f"the model are not in the file: {which}",
            remedy="give the model as safetensors: model=local or model=hub",
        )


def _entry(path: Path, tensor: GgufTensor, shape: tuple[int, ...]) -> dict[str, Any]:
    if tensor.type not in PLAIN and GGMLQuantizationType[tensor.type] not in _type_traits:
        raise UserError(
            f"{path}: {tensor.name!r} is stored as {tensor.type}, which cannot be dequantised",
            remedy="give a file of another quantization type, or the model as safetensors",
        )
    return {
        "stored": tensor.name,
        "type": tensor.type,
        "start": tensor.start,
        "length": tensor.length,
        "rows": list(tensor.shape),
        "shape": list(shape),
    }


def _public(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not name.startswith("_")}


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")
