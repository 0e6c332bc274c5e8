"""Write a tiny random model of a case as transformers itself saves it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from tests.benchmarks.random_llama import write_tokenizer
from tests.families.case import TEXT, TOWER, Case, Settings

LANGUAGE = ("text_config", "thinker_config", "talker_config", "code_predictor_config")
"""Nested configs of language models, or of models that have one."""


def config_of(case: Case) -> PreTrainedConfig:
    """The tiny config of a case."""
    return _config(CONFIG_MAPPING[case.model_type], case.settings, TEXT)


def class_of(case: Case) -> Any:
    """The class that loads the case, or transformers' automatic class."""
    return getattr(transformers, case.cls) if case.cls else AutoModelForCausalLM


def build(case: Case) -> PreTrainedModel:
    """The model of a case in bfloat16, with parameters that nothing can mistake for zeros."""
    torch.manual_seed(0)
    config = config_of(case)
    cls = class_of(case)
    make = cls.from_config if cls is AutoModelForCausalLM else cls._from_config
    model: PreTrainedModel = make(config, dtype=torch.bfloat16).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
            _fill(name, tensor, generator)
    return model


def write(case: Case, folder: Path) -> Path:
    """Save the model of a case with a byte tokenizer into `folder`; returns it."""
    model = build(case)
    model.save_pretrained(folder)
    write_tokenizer(folder)
    return folder


def _fill(name: str, tensor: torch.Tensor, generator: torch.Generator) -> None:
    """Matrices keep the size of what goes through them; vectors move a little from their start."""
    if not tensor.is_floating_point():
        return
    drawn = torch.randn(tensor.shape, generator=generator)
    if "e_score_correction_bias" in name or "expert_bias" in name:
        tensor.copy_(drawn * 0.1)
    elif not isinstance(tensor, torch.nn.Parameter):
        return
    elif tensor.dim() >= 2 and "conv" not in name and "A_log" not in name:
        embedding = "embed" in name or "wte" in name or "wpe" in name
        tensor.copy_(drawn * (0.5 if embedding else 1 / math.sqrt(tensor.shape[-1])))
    else:
        tensor.add_((drawn * 0.1).to(tensor.dtype))


def _config(cls: Any, own: Settings, common: Settings) -> PreTrainedConfig:
    names = {field.name for field in dataclasses.fields(cls)} | set(cls.attribute_map)
    values: dict[str, Any] = {name: v for name, v in common.items() if name in names}
    for name, value in own.items():
        sub = cls.sub_configs.get(name)
        values[name] = _nested(name, sub, value) if sub and isinstance(value, Mapping) else value
    config: PreTrainedConfig = cls(**values)
    return config


def _nested(name: str, sub: Any, value: Settings) -> Settings:
    """A nested config's settings; its model_type names the class where a field allows several."""
    rest = dict(value)
    kind = rest.pop("model_type", None)
    cls = CONFIG_MAPPING[kind] if kind else sub
    if name in ("attn_config", "ffn_config"):
        return rest
    common = TEXT if name in LANGUAGE else TOWER
    return _config(cls, rest, common).to_dict()
