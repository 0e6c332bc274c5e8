"""A compressed checkpoint as `save` would write it, without weights: config.json and headers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from stages.formats.compressed_tensors_bridge import parse, schemes_in
from stages.formats.module_tensors import expected_parts
from stages.formats.quantization_config import Schemes, quantization_config
from stages.model.blueprint import Blueprint
from stages.schemes.protocols import ModuleFormat
from stages.schemes.resolve import resolve
from stages.schemes.scheme import SchemeConfig
from stages.verify.transformers_check import Verdict, verdict_of
from stages.weights import TensorSpec

DTYPES = {"bfloat16": "BF16", "float32": "F32"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Headers:
    """What a loader sees of a checkpoint before it reads a weight."""

    blueprint: Blueprint
    settings: dict[str, Any]
    specs: dict[str, TensorSpec]
    quantized: dict[str, ModuleFormat]

    @classmethod
    def of(cls, original: Blueprint, scheme: SchemeConfig) -> Headers:
        resolved = resolve(scheme, original).checked()
        model = original.saved(resolved)
        config = quantization_config(resolved, model)
        schemes = Schemes(schemes_in(parse(config)))
        modules = {m.prefix: m for m in (*model.linears(), *model.ends()) if m.name in resolved}
        quantized = {n: schemes.of(n, own.kind) for n, own in modules.items()}
        dtype = DTYPES[model.dtype]
        shapes = {stored: model.outside_shapes[name] for name, stored in model.outside.items()}
        for layer in model.layers:
            shapes |= {stored: layer.shapes[name] for name, stored in layer.tensors.items()}
        stored: dict[str, tuple[tuple[int, ...], str]] = {}
        for name, shape in shapes.items():
            prefix, _, part = name.rpartition(".")
            if part == "weight" and prefix in quantized:
                parts = expected_parts(quantized[prefix], shape, dtype)
                stored |= {f"{prefix}.{local}": value for local, value in parts.items()}
            else:
                stored[name] = (shape, dtype)
        settings = {**model.config, "quantization_config": config}
        if original.tied and not model.tied:
            settings["tie_word_embeddings"] = False
        return cls(
            blueprint=model,
            settings=settings,
            specs={n: TensorSpec(name=n, shape=s, dtype=d) for n, (s, d) in stored.items()},
            quantized=quantized,
        )

    def verdict(self) -> Verdict:
        return verdict_of(self.settings, self.specs, self.blueprint, self.quantized)
