"""Build a model on the meta device from config.json: all modules, no weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import RLock
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MULTIMODAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)

from pipeline.errors import UserError
from stages.model.config_counts import check_counts

NO_MODEL = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(ArithmeticError, RuntimeError, AssertionError, ImportError),
)
"""Exceptions that transformers' classes raise for configs with unexpected values."""

BUILDING = RLock()
"""Held while transformers builds a model or computes its buffers: meanwhile the default dtype of
torch is the model's, in all threads of the process."""

CODE = frozenset(
    f"{lead}{what}_implementation" for lead in ("", "_") for what in ("attn", "experts")
)
"""Config keys that may name kernels on a hub, which transformers would fetch and run."""


class UnknownArchitecture(UserError):
    """transformers has no class for a model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """Names of the decoder, its layers in order, token embedding and lm_head in a module tree."""

    decoder: str
    layers: tuple[str, ...]
    embedding: str
    head: str


def config_of(config: Mapping[str, Any]) -> PreTrainedConfig:
    """The transformers config of a parsed config.json.

    Raises UnknownArchitecture for a model_type that transformers does not know, and UserError for
    a config that its class rejects.
    """
    model_type = str(config.get("model_type"))
    if model_type not in CONFIG_MAPPING:
        close = get_close_matches(model_type, list(CONFIG_MAPPING.keys()), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UnknownArchitecture(
            f"config.json has model_type {model_type!r}, which transformers does not know",
            remedy=f"{hint}use a model that transformers has, or a newer transformers",
        )
    check_counts(config)
    plain = _plain({name: v for name, v in config.items() if name != "quantization_config"})
    with TemporaryDirectory() as folder:
        # through a file, because only then does transformers decode infinity and NaN
        Path(folder, "config.json").write_text(json.dumps(plain), encoding="utf-8")
        try:
            loaded: PreTrainedConfig = CONFIG_MAPPING[model_type].from_pretrained(folder)
        except (StrictDataclassError, *NO_MODEL) as error:
            raise UserError(
                f"config.json is not a valid {model_type} config: {error}",
                remedy="correct it, or fetch the model again",
            ) from error
    loaded.use_cache = False
    return loaded


def dtype_of(config: PreTrainedConfig) -> str:
    """The name of the dtype that a config or its text config states; float32 if none."""
    stated = config.dtype or config.get_text_config(decoder=True).dtype or torch.float32
    return str(stated).removeprefix("torch.")


def class_of(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class of the model: the one in `architectures`, where transformers has it.

    Else the one that transformers has for this config: of a config with parts (vision, text) the
    whole model, so that none of its tensors is left out; of an encoder-decoder both. Raises
    UnknownArchitecture if transformers has no class for it that generates text.
    """
    whole = (MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING, MODEL_FOR_MULTIMODAL_LM_MAPPING)
    text = (MODEL_FOR_CAUSAL_LM_MAPPING,)
    both = (MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING, MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING)
    parts = config.get_text_config(decoder=True) is not config
    classes: list[type[PreTrainedModel]] = []
    order = (*whole, *text) if parts else (*text, *whole)
    for mapping in (*both, *order) if config.is_encoder_decoder else order:
        found: Any = mapping[type(config)] if type(config) in mapping else ()
        classes += found if isinstance(found, tuple) else [found]
    if not classes:
        raise UnknownArchitecture(
            f"transformers has no causal language model for model_type {config.model_type!r}",
            remedy="use a decoder-only language model",
        )
    stated = config.architectures or ()
    return next((found for found in classes if found.__name__ in stated), classes[0])


def meta_model(config: PreTrainedConfig, dtype: str) -> PreTrainedModel:
    """The model of `config` with every parameter and buffer on the meta device.

    Raises UnknownArchitecture if transformers has no class for it that generates text.
    """
    model_class: Any = class_of(config)
    try:
        with BUILDING, torch.device("meta"):
            model: PreTrainedModel = model_class._from_config(config, dtype=getattr(torch, dtype))
    except NO_MODEL as error:
        raise UserError(
            f"config.json describes no {config.model_type} model: {type(error).__name__}: {error}",
            remedy="correct it, or fetch the model again",
        ) from error
    if "forward" not in _methods(type(model)):
        # Qwen3-Omni as a whole: what generates text is one of its parts
        model.__dict__["forward"] = text_part(model).forward
    model.requires_grad_(False)
    model.eval()
    return model


def text_part(model: PreTrainedModel) -> PreTrainedModel:
    """The part of a model that generates text: itself where it has an lm_head of its own."""
    if model.get_output_embeddings() is not None:
        return model
    parts = (part for part in model.children() if isinstance(part, PreTrainedModel))
    return next((part for part in parts if part.get_output_embeddings() is not None), model)


def _methods(model_class: type) -> set[str]:
    """Names that a class or its bases define, up to transformers' base class."""
    bases = model_class.__mro__[: model_class.__mro__.index(PreTrainedModel)]
    return {name for base in bases for name in vars(base)}


def tree_of(model: PreTrainedModel) -> Tree:
    """Find decoder layers, embedding and lm_head of `model`; UserError if there are none."""
    names = {id(module): name for name, module in model.named_modules()}
    part = text_part(model)
    decoder = part.get_decoder()
    text = model.config.get_text_config(decoder=True)
    # LongCat counts two for each layer, and its layers beside them
    count = getattr(text, "num_layers", None) or text.num_hidden_layers
    head = part.get_output_embeddings()
    if decoder is head:  # ModernBERT calls its head `decoder`
        decoder = part.base_model
    lists = [m for m in decoder.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not lists or head is None:
        raise UserError(
            f"{type(model).__name__} has no list of {count} decoder layers followed by an lm_head",
            remedy="use a decoder-only language model",
        )
    layers = names[id(lists[0])]
    return Tree(
        decoder=names[id(decoder)],
        layers=tuple(f"{layers}.{index}" for index in range(count)),
        embedding=names[id(part.get_input_embeddings())],
        head=names[id(head)],
    )


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without the keys that would make transformers fetch and run code."""
    return {
        name: _plain(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in CODE
    }
