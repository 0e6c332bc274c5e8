"""Open a checkpoint folder of unknown origin for `mode=verify`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from compressed_tensors.quantization import QuantizationConfig, QuantizationScheme

from pipeline.errors import ManyErrors, UserError
from stages.formats.compressed_tensors_bridge import parse, schemes_in
from stages.formats.decompressed_source import Decompressed
from stages.formats.module_tensors import INPUT_PARTS, PARTS
from stages.formats.quantization_config import Schemes
from stages.model.blueprint import EMBEDDING, Blueprint, LinearSpec
from stages.model.families import is_router
from stages.schemes.resolve import matches
from stages.weights import TensorSpec, WeightSource, open_checkpoint
from stages.weights.dtypes import dtype_name
from stages.weights.untrusted_json import read_json

MARKS = frozenset({*PARTS, *INPUT_PARTS} - {"weight"})
DTYPES = {str(d).removeprefix("torch."): d for d in (torch.bfloat16, torch.float16, torch.float32)}
LARGEST_CONFIG = 16_000_000
CACHE_SCALES = ("k_scale", "v_scale", "q_scale", "k_zero_point", "v_zero_point")


@dataclass(frozen=True, kw_only=True)
class Folder:
    """Tensors, config and schemes of a checkpoint folder.

    `compressed` maps the modules that are stored compressed to the local names of their tensors,
    `quantized` to the schemes that the config gives them; `uncovered` are those without a scheme.
    `blueprint` is the model of transformers' class: None if there is none (see `no_class`), or if
    the tensors do not fit it (see `problem`).
    """

    folder: Path
    saved: WeightSource
    specs: Mapping[str, TensorSpec]
    settings: Mapping[str, Any]
    config: QuantizationConfig | None
    compressed: Mapping[str, frozenset[str]]
    quantized: Mapping[str, QuantizationScheme]
    uncovered: tuple[str, ...]

    def parsed(self) -> QuantizationConfig:
        """The quantization_config; ValueError if there is none that can be parsed."""
        if self.config is None:
            raise ValueError("there is no quantization_config")
        return self.config

    @cached_property
    def dtype(self) -> torch.dtype:
        """The dtype that config.json states, bfloat16 if it states none."""
        text = self.settings.get("text_config")
        parts = [self.settings, text] if isinstance(text, dict) else [self.settings]
        stated = [part.get(key) for part in parts for key in ("dtype", "torch_dtype")]
        name = next((str(value) for value in stated if value), "bfloat16")
        return DTYPES.get(name.removeprefix("torch."), torch.bfloat16)

    @property
    def dtype_name(self) -> str:
        return dtype_name(self.dtype)

    def dense(self) -> Decompressed:
        """The checkpoint as a dense model; modules that the config does not cover are left out."""
        given = self.settings["quantization_config"]
        return Decompressed(self.saved, given, self.dtype, self.turned)

    @cached_property
    def turned(self) -> frozenset[str]:
        """Compressed modules whose class keeps its weight as [in, out] (GPT-2's Conv1D)."""
        from transformers import CONFIG_MAPPING

        from stages.model.meta_model import config_of, dtype_of, meta_model
        from stages.model.traits.transposed_linears import conv1d_names

        if str(self.settings.get("model_type")) not in CONFIG_MAPPING:
            return frozenset()
        try:
            config = config_of(self.settings)
            names = tuple(conv1d_names(meta_model(config, dtype_of(config))))
        except UserError:
            return frozenset()
        # a checkpoint of the model without its head has names without `transformer.`
        ends = {prefix: f".{prefix}" for prefix in self.compressed}
        return frozenset(p for p, end in ends.items() if any(f".{n}".endswith(end) for n in names))

    @cached_property
    def _from_class(self) -> tuple[Blueprint | None, str, str]:
        """Blueprint, the reason why there cannot be one, the problem of the tensors."""
        from transformers import CONFIG_MAPPING

        from stages.model.blueprint_from_class import blueprint_of

        model_type = str(self.settings.get("model_type"))
        if model_type not in CONFIG_MAPPING:
            return None, f"transformers has no class for model_type {model_type!r}", ""
        if self.uncovered:
            return None, "not every compressed module can be read", ""
        try:
            return blueprint_of(self.settings, specs=self.dense().specs()), "", ""
        except (UserError, ManyErrors, KeyError) as error:
            return None, "", str(error)

    @property
    def blueprint(self) -> Blueprint | None:
        return self._from_class[0]

    @property
    def no_class(self) -> str:
        return self._from_class[1]

    @property
    def problem(self) -> str:
        return self._from_class[2]

    @cached_property
    def schemes(self) -> Schemes[QuantizationScheme]:
        """The groups of the config."""
        return Schemes(schemes_in(self.parsed()))

    @property
    def routers(self) -> frozenset[str]:
        """Linears that are routers: engines keep them dense whatever the targets say."""
        return frozenset(linear.name for linear in self.linears() if is_router(linear.prefix))

    def linears(self) -> Iterator[LinearSpec]:
        """The Linears of the model's class; none if there is no class."""
        if self.blueprint is not None:
            yield from self.blueprint.linears()

    def modules(self) -> list[LinearSpec]:
        """All modules that an entry of `ignore` may match: Linears, and modules with tensors."""
        stored = {name.rpartition(".")[0] for name in self.specs}
        parents = {prefix.rpartition(".")[0] for prefix in stored}
        names = [*sorted(stored | parents), *self._tied_head()]
        found = [
            LinearSpec(name=n, prefix=n, in_features=0, out_features=0, kind="") for n in names
        ]
        ends = self.blueprint.ends() if self.blueprint is not None else ()
        return [*self.linears(), *(end for end in ends if end.kind == EMBEDDING), *found]

    def _tied_head(self) -> list[str]:
        """The name of a tied lm_head, which has no tensor but is known to loaders."""
        return ["lm_head"] if self.settings.get("tie_word_embeddings", True) else []

    def is_ignored(self, linear: LinearSpec) -> bool:
        names = (linear.name, linear.prefix)
        return any(matches(p, names, linear.kind) for p in self.parsed().ignore or [])


def folder_of(path: Path) -> Folder:
    """Open a checkpoint folder; UserError or ManyErrors if it cannot be read at all."""
    saved = open_checkpoint(path)
    settings = read_json(path / "config.json", longest=LARGEST_CONFIG)
    specs = saved.specs()
    given = settings.get("quantization_config")
    readable = isinstance(given, dict) and given.get("quant_method") == "compressed-tensors"
    config = parse(given) if readable and isinstance(given, dict) else None
    parts: dict[str, set[str]] = {}
    for name in specs:
        prefix, _, part = name.rpartition(".")
        parts.setdefault(prefix, set()).add(part)
    compressed = {p: frozenset(local) for p, local in parts.items() if local & MARKS}
    quantized, uncovered = {}, []
    schemes = Schemes([] if config is None else schemes_in(config))
    for prefix in compressed if config is not None else ():
        try:
            quantized[prefix] = schemes.of(prefix)
        except UserError:
            uncovered.append(prefix)
    return Folder(
        folder=path,
        saved=saved,
        specs=specs,
        settings=settings,
        config=config,
        compressed=compressed,
        quantized=quantized,
        uncovered=tuple(uncovered),
    )
