"""Compressed layer of a `compress` result: its dequantized weights and input quantization."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from compressed_tensors.quantization import QuantizationConfig

from pipeline.stage import Artifact
from stages.formats.compressed_tensors_bridge import to_compressed_tensors
from stages.formats.decompressed_source import Decompressed
from stages.formats.input_params import InputRule
from stages.formats.layer_artifact import LAYER, SHARD, from_groups
from stages.formats.quantization_config import MIXED
from stages.weights.tensor_content import reader


class CompressedLayer:
    """A result of stage `compress`: dequantized weights, and the rules of its inputs.

    `weights` is a `WeightSource` that reads like the original layer, under the same names;
    `shard` reads the tensors as they are stored.
    """

    def __init__(self, artifact: Artifact) -> None:
        info: dict[str, Any] = artifact.json(LAYER)
        self.modules: Mapping[str, Mapping[str, Any]] = info["modules"]
        self.dtype: torch.dtype = getattr(torch, info["dtype"])
        self.shard = reader(artifact, SHARD)
        self.weights = Decompressed(self.shard, _config(info["groups"]), self.dtype)

    def input_rules(self) -> dict[str, InputRule]:
        """The rules of its modules' inputs by module name, for `simulated_inputs`."""
        return self.weights.input_rules(
            {name: info["prefix"] for name, info in self.modules.items()}
        )


def _config(groups: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A quantization_config for one layer, which targets modules by name."""
    schemes = [to_compressed_tensors(group) for group in from_groups(groups)]
    config = QuantizationConfig(
        config_groups={f"group_{i}": scheme for i, scheme in enumerate(schemes)},
        quantization_status="compressed",
        format=MIXED,
        ignore=[],
    )
    dumped: dict[str, Any] = config.model_dump(mode="json")
    return dumped
