"""Open a checkpoint of any writer: its tensors, its config, and the reader that decodes it.

Folders come from strangers: headers are checked against the files' sizes, JSON is bounded, and
links that lead out of the folder are refused, as everywhere that weights are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.errors import ManyErrors, UserError
from pipeline.plain_file import is_plain
from stages.quantized.catalog import dense_dtype, opened, quantization_of
from stages.quantized.source import Module, QuantizedSource
from stages.weights import TensorSpec, WeightSource, open_checkpoint
from stages.weights.untrusted_json import read_json

LONGEST_CONFIG = 16_000_000


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model folder. `quantization` is None for a dense one.

    `stated_in` is the file that states it. `reader` decodes the quantized modules; where it is None
    `unread` says why. `specs` are the tensors as they are stored.
    """

    path: Path
    settings: Mapping[str, Any]
    saved: WeightSource
    specs: Mapping[str, TensorSpec]
    quantization: Mapping[str, Any] | None = None
    stated_in: str = ""
    reader: QuantizedSource | None = None
    unread: str = ""
    modules: Mapping[str, Module] = field(default_factory=dict)

    @property
    def method(self) -> str | None:
        """The `quant_method`; None for a dense model, "" where the config gives none."""
        if self.quantization is None:
            return None
        return str(self.quantization.get("quant_method") or "")

    def bytes_of(self, module: Module) -> int:
        """Bytes of a module's stored tensors."""
        return sum(self.specs[f"{module.prefix}.{part}"].bytes for part in module.parts)

    def dense(self) -> dict[str, TensorSpec]:
        """The tensors that are part of no quantized module, as stored."""
        parts = {f"{m.prefix}.{part}" for m in self.modules.values() for part in m.parts}
        return {name: spec for name, spec in self.specs.items() if name not in parts}


def open_folder(path: Path) -> Checkpoint:
    """Open a checkpoint folder; UserError or ManyErrors if its files cannot be read at all.

    A quantization that no reader takes is no error: the tensors are there to be listed.
    """
    saved = open_checkpoint(path)
    specs = saved.specs()
    config = path / "config.json"
    settings = read_json(config, longest=LONGEST_CONFIG) if is_plain(config) else {}
    found = Checkpoint(path=path, settings=settings, saved=saved, specs=specs)
    stated = quantization_of(path, settings)
    if stated is None:
        return found
    stated_in, quantization = stated
    found = replace(found, quantization=quantization, stated_in=stated_in)
    try:
        reader = opened(saved, quantization, dense_dtype(settings))
        modules = dict(reader.modules)
    except (UserError, ManyErrors) as error:
        return replace(found, unread=str(error))
    return replace(found, reader=reader, modules=modules)
