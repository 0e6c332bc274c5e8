"""One compressed layer in the store: what `compress` writes and later stages read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from pipeline.stage import Artifact
from stages.formats.activations import InputRule
from stages.formats.decompress import Decompressed
from stages.weights.folder import Layout
from stages.weights.safetensors_source import SafetensorsSource

SHARD, LAYER, CHECKSUM = "shard.safetensors", "layer.json", "checksum.safetensors"


class CompressedLayer:
    """A result of stage `compress`: its plain weights, and how its inputs are quantized.

    `weights` is a `WeightSource` that reads like the original layer, under the same names;
    `shard` reads the tensors as they are stored.
    """

    def __init__(self, artifact: Artifact) -> None:
        info: dict[str, Any] = artifact.json(LAYER)
        path = artifact.file(SHARD)
        self.modules: Mapping[str, Mapping[str, Any]] = info["modules"]
        self.dtype: torch.dtype = getattr(torch, info["dtype"])
        self.shard = SafetensorsSource(Layout(where=str(path), files={SHARD: path}, tensors=None))
        self.weights = Decompressed(self.shard, info["quantization_config"], self.dtype)

    def input_rules(self) -> dict[str, InputRule]:
        """How the inputs of its modules are quantized, by module name; see `simulated_inputs`."""
        return self.weights.input_rules(
            {name: info["prefix"] for name, info in self.modules.items()}
        )
