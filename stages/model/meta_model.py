"""From a config.json to a model on the meta device: all modules, no weights."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from huggingface_hub.errors import StrictDataclassError
from torch import nn
from transformers import (
    CONFIG_MAPPING,
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    PreTrainedConfig,
    PreTrainedModel,
)

from pipeline.errors import UserError


class UnknownArchitecture(UserError):
    """transformers has no class for a model."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tree:
    """Where things are in a model's module tree, by module name.

    `decoder` holds the decoder layers, whose names are `layers`, in order.
    """

    decoder: str
    layers: tuple[str, ...]
    embedding: str
    head: str


NO_MODEL = (
    *(ValueError, TypeError, KeyError, IndexError, AttributeError),
    *(ArithmeticError, RuntimeError, AssertionError, ImportError),
)
"""What transformers' classes raise for configs with values that they do not expect."""

MOST = {re.compile(r"\w*(?:layers?|blocks?|depth)"): 2_000, re.compile(r"\w*experts"): 10_000}
"""Counts of a config that modules are made by: more than these would only use up the memory."""

CODE = frozenset(
    f"{lead}{what}_implementation" for lead in ("", "_") for what in ("attn", "experts")
)
"""Keys that may name kernels on a hub, which transformers would fetch and run."""


def _check_counts(config: Mapping[str, Any]) -> None:
    for name, value in config.items():
        if isinstance(value, Mapping):
            _check_counts(value)
        for pattern, most in MOST.items():
            if isinstance(value, int | float) and pattern.fullmatch(name) and value > most:
                raise UserError(
                    f"config.json has {name} {value}: no model has more than {most}",
                    remedy="correct it, or fetch the model again",
                )


def _plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what would run code that is not in it."""
    return {
        name: _plain(value) if isinstance(value, Mapping) else value
        for name, value in config.items()
        if name not in CODE
    }


def config_of(config: Mapping[str, Any]) -> PreTrainedConfig:
    """The transformers config of a parsed config.json; UnknownArchitecture for a new model_type."""
    model_type = str(config.get("model_type"))
    if model_type not in CONFIG_MAPPING:
        close = get_close_matches(model_type, list(CONFIG_MAPPING.keys()), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise UnknownArchitecture(
            f"config.json has model_type {model_type!r}, which transformers does not know",
            remedy=f"{hint}use a model that transformers has, or a newer transformers",
        )
    _check_counts(config)
    plain = _plain({name: v for name, v in config.items() if name != "quantization_config"})
    with TemporaryDirectory() as folder:
        # Through a file, because only that way transformers decodes what JSON has no number for.
        Path(folder, "config.json").write_text(json.dumps(plain), encoding="utf-8")
        try:
            made: PreTrainedConfig = CONFIG_MAPPING[model_type].from_pretrained(folder)
        except (StrictDataclassError, *NO_MODEL) as error:
            raise UserError(
                f"config.json is not a valid {model_type} config: {error}",
                remedy="correct it, or fetch the model again",
            ) from error
    made.use_cache = False
    return made


def dtype_of(config: PreTrainedConfig) -> str:
    """The name of the dtype that a config states, or of its text model; float32 if none."""
    stated = config.dtype or config.get_text_config(decoder=True).dtype or torch.float32
    return str(stated).removeprefix("torch.")


def meta_model(config: PreTrainedConfig, dtype: str) -> PreTrainedModel:
    """The model of `config` with every parameter and buffer on the meta device.

    Raises UnknownArchitecture where transformers has no class that generates text for it.
    """
    mappings = (MODEL_FOR_CAUSAL_LM_MAPPING, MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING)
    classes: list[Any] = [mapping[type(config)] for mapping in mappings if type(config) in mapping]
    if not classes:
        raise UnknownArchitecture(
            f"transformers has no causal language model for model_type {config.model_type!r}",
            remedy="use a decoder-only language model",
        )
    try:
        with torch.device("meta"):
            model: PreTrainedModel = classes[0]._from_config(config, dtype=getattr(torch, dtype))
    except NO_MODEL as error:
        raise UserError(
            f"config.json describes no {config.model_type} model: {type(error).__name__}: {error}",
            remedy="correct it, or fetch the model again",
        ) from error
    model.requires_grad_(False)
    model.eval()
    return model


def tree_of(model: PreTrainedModel) -> Tree:
    """Find decoder layers, embedding and head of `model`; UserError where there are none."""
    names = {id(module): name for name, module in model.named_modules()}
    decoder = model.get_decoder()
    count = model.config.get_text_config(decoder=True).num_hidden_layers
    lists = [m for m in decoder.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    head = model.get_output_embeddings()
    if not lists or head is None:
        raise UserError(
            f"{type(model).__name__} has no list of {count} decoder layers followed by an lm_head",
            remedy="use a decoder-only language model",
        )
    layers = names[id(lists[0])]
    return Tree(
        decoder=names[id(decoder)],
        layers=tuple(f"{layers}.{index}" for index in range(count)),
        embedding=names[id(model.get_input_embeddings())],
        head=names[id(head)],
    )
