"""Tiny random models of the families with experts, as transformers saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, PreTrainedModel

from stages.model.meta_model import class_of
from tests.stages.model.experts.families import BASE, EXPERTS
from tests.stages.model.tiny import Folder, Tiny

IDS = torch.randint(3, 96, (2, 24), generator=torch.Generator().manual_seed(5))


def random_model(family: str, *, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model of a family (a key of EXPERTS) with random weights, none of them equal by zeros."""
    settings = EXPERTS[family]
    whole = "text_config" in settings
    config: Any = CONFIG_MAPPING[family](**({} if whole else BASE) | settings)
    torch.manual_seed(0)
    model: Any = class_of(config)
    built: PreTrainedModel = model._from_config(config, dtype=dtype).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return built


def tiny_experts(family: str, folder: Path, *, dtype: torch.dtype = torch.float32) -> Tiny:
    """Save such a model into `folder`."""
    random_model(family, dtype=dtype).save_pretrained(folder)
    return Tiny(
        path=folder,
        source=Folder(folder),
        config=json.loads((folder / "config.json").read_text()),
    )
