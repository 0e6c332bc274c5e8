"""Map the tensors of a GGUF file to those of the transformers model, one to one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize
from transformers import AutoModelForCausalLM
from transformers import modeling_gguf_pytorch_utils as gguf_loading

from pipeline.errors import UserError
from stages.load.model_kind import Work
from stages.model.meta_model import BUILDING
from stages.weights.gguf_header import GgufHeader, GgufTensor

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

LISTED = 5
ROPES = "rope_"  # factors of scaled rotary embeddings: llama.cpp stores them as tensors


@dataclass(frozen=True, kw_only=True, slots=True)
class _Names:
    """The part of a module that transformers needs to match names.

    transformers builds its table again for every module of the tree, though only the model and its
    direct children can match. So only these two levels are shown to it.
    """

    config: Any
    tensors: Mapping[str, Any]
    children: tuple[tuple[str, _Names], ...] = ()

    @staticmethod
    def of(model: Any) -> _Names:
        inner = [
            (name, _Names(config=model.config, tensors=child.state_dict()))
            for name, child in model.named_children()
        ]
        return _Names(config=model.config, tensors=model.state_dict(), children=tuple(inner))

    def state_dict(self) -> Mapping[str, Any]:
        return self.tensors

    def named_children(self) -> tuple[tuple[str, _Names], ...]:
        return self.children


def tensor_table(header: GgufHeader, config: Any, work: Work) -> dict[str, Any]:
    """The table of `GgufSource`: an entry for every tensor by its name in transformers.

    Raises UserError if the file's tensors do not map one to one to the model's.
    """
    processor: Any = gguf_loading.TENSOR_PROCESSORS.get(
        header.architecture, gguf_loading.TensorProcessor
    )
    merged = [name for name in header.tensors if "_exps" in name]
    if processor not in PER_TENSOR or merged:
        raise UserError(
            f"{header.path}: GGUF files of the architecture {header.architecture!r} store "
            f"{'experts merged' if merged else 'tensors in another layout'}, which cannot be read "
            "tensor by tensor",
            remedy="give the model as safetensors: model=local or model=hub",
        )
    auto: Any = AutoModelForCausalLM
    with BUILDING, torch.device("meta"):
        model = auto.from_config(config)
    view: Any = _Names.of(model)
    names = gguf_loading.get_gguf_hf_weights_map(view, processor(config=config.to_dict()))
    shapes = {name: tuple(tensor.shape) for name, tensor in view.state_dict().items()}
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
    ropes = [name for name in unknown if name.startswith(ROPES)]
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
    if not _can_dequantise(GGMLQuantizationType[tensor.type]):
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


def _can_dequantise(stored: GGMLQuantizationType) -> bool:
    block = np.zeros((1, GGML_QUANT_SIZES[stored][1]), dtype=np.uint8)
    try:
        dequantize(block, stored)
    except NotImplementedError:
        return False
    return True
