"""The oracle of expert pruning: the original model, with some experts that no router chooses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from stages.model.meta_model import class_of, config_of
from tests.stages.model.experts.tiny import IDS


def loaded(folder: Path) -> PreTrainedModel:
    """A checkpoint in float32, as transformers reads it without anything missing or left over."""
    config = json.loads((folder / "config.json").read_text())
    loader: Any = class_of(config_of(config))
    model, told = loader.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not told["missing_keys"] and not told["unexpected_keys"]
    found: PreTrainedModel = model.eval()
    return found


def logits(model: PreTrainedModel) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(input_ids=IDS, use_cache=False).logits
    return found


@contextmanager
def never_chosen(
    model: PreTrainedModel, gone: Mapping[str, Sequence[int]], experts: int
) -> Iterator[None]:
    """Context in which the routers of layers score the experts `gone` as -inf.

    Correction biases become -inf too, and stay so.
    """
    scores: dict[int, list[int]] = {}
    for name, parameter in model.state_dict(keep_vars=True).items():
        layer = next((one for one in gone if name.startswith(f"{one}.")), None)
        if (
            layer is None
            or experts not in parameter.shape
            or ".experts." in name
            or ".indexer." in name
        ):
            continue
        if parameter.dim() == 2 and parameter.shape[0] == experts:
            scores[parameter.data_ptr()] = list(gone[layer])
        elif name.endswith(("e_score_correction_bias", "expert_bias")):
            parameter.data[..., list(gone[layer])] = -torch.inf
    assert len(scores) == len(gone)
    plain = functional.linear

    def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        found: Tensor = plain(x, weight, bias)
        if weight.data_ptr() in scores:
            found[..., scores[weight.data_ptr()]] = -torch.inf
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(functional, "linear", linear)
        yield


def same(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * float(wanted.abs().max()))
