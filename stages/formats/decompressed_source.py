"""Weight source that decompresses a compressed-tensors checkpoint, one module at a time."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
from compressed_tensors.quantization import QuantizationScheme
from torch import Tensor

from pipeline.errors import UserError
from stages.formats.compressed_tensors_bridge import parse, schemes_in
from stages.formats.input_params import InputParams, InputRule
from stages.formats.module_tensors import INPUT_PARTS, MISFITS, PARTS, stored_parts
from stages.formats.pack import unpack
from stages.formats.quantization_config import Schemes, quantized_prefixes
from stages.schemes.layouts import words_in
from stages.weights import TensorSpec, WeightSource
from stages.weights.dtypes import dtype_name


class Decompressed:
    """A `WeightSource` over a compressed checkpoint or layer that reads like the dense one.

    Names are those before compression; compressed weights are returned in `dtype`. `config` is a
    `quantization_config`. Of the modules `turned` (GPT-2's Conv1D) the dense model has a weight
    [in, out], and so has a checkpoint where it is called `weight`: `shape` and `stored` give what
    is theirs as a Linear's, [out, in].
    """

    def __init__(
        self,
        source: WeightSource,
        config: Mapping[str, Any],
        dtype: torch.dtype,
        turned: Container[str] = (),
    ) -> None:
        self._source = source
        self._turned = turned
        self._config = parse(config)
        self._dtype = dtype

    @cached_property
    def _stored_specs(self) -> Mapping[str, TensorSpec]:
        return self._source.specs()

    @cached_property
    def schemes(self) -> dict[str, QuantizationScheme]:
        """The scheme of every compressed module by its name in the checkpoint."""
        prefixes = quantized_prefixes(list(self._stored_specs))
        schemes = Schemes(schemes_in(self._config))
        return {prefix: schemes.of(prefix) for prefix in prefixes}

    @cached_property
    def _specs(self) -> dict[str, TensorSpec]:
        stored, specs = self._stored_specs, {}
        for name, spec in stored.items():
            prefix, _, part = name.rpartition(".")
            if prefix not in self.schemes or part not in (*PARTS, *INPUT_PARTS):
                specs[name] = spec
        for prefix in self.schemes:
            name = f"{prefix}.weight"
            shape = self.shape(prefix)
            dense = shape[::-1] if prefix in self._turned else shape
            specs[name] = TensorSpec(name=name, shape=dense, dtype=dtype_name(self._dtype))
        return specs

    def specs(self) -> Mapping[str, TensorSpec]:
        """Names, shapes and dtypes as they were before compression."""
        return self._specs

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        """The named tensors, compressed weights unpacked; UserError for one that cannot be."""
        found: dict[str, Tensor] = {}
        plain = []
        for name in names:
            prefix, _, part = name.rpartition(".")
            if part == "weight" and prefix in self.schemes:
                found[name] = self._weight(prefix, device)
            else:
                plain.append(name)
        if plain:
            found.update(self._source.read(plain, device=device))
        return found

    def stored(self, prefix: str, *, device: str = "cpu") -> dict[str, Tensor]:
        """The tensors of one compressed module as they are stored, by local name, without bias."""
        parts = stored_parts(self._source, self._stored_specs, prefix, device=device)
        if prefix in self._turned and "weight" in parts:
            parts["weight"] = parts["weight"].T.contiguous()
        return parts

    def input_rules(self, prefixes: Mapping[str, str]) -> dict[str, InputRule]:
        """The rules of modules' inputs by module name.

        `prefixes` maps module names to names in the checkpoint; modules whose inputs are not
        quantized are left out.
        """
        rules = {}
        for name, prefix in prefixes.items():
            scheme = self.schemes.get(prefix)
            if scheme is None or scheme.input_activations is None:
                continue
            parts = [part for part in INPUT_PARTS if f"{prefix}.{part}" in self._stored_specs]
            tensors = self._source.read([f"{prefix}.{part}" for part in parts])
            params = {p.removeprefix("input_"): tensors[f"{prefix}.{p}"] for p in parts}
            rules[name] = InputRule(args=scheme.input_activations, params=InputParams(**params))
        return rules

    def _weight(self, prefix: str, device: str) -> Tensor:
        try:
            weight = unpack(self.stored(prefix, device=device), self.schemes[prefix])
        except MISFITS as error:
            raise UserError(
                f"the compressed tensors of {prefix} do not fit format "
                f"{self.schemes[prefix].format}: {error}"
            ) from error
        # scales of another shape can broadcast what they are multiplied with
        if tuple(weight.shape) != (shape := self.shape(prefix)):
            raise UserError(
                f"{prefix} is {list(shape)} by its weights, but {list(weight.shape)} by its scales",
                remedy="fetch the checkpoint again",
            )
        weight = weight.to(self._dtype)
        return weight.T.contiguous() if prefix in self._turned else weight

    def shape(self, prefix: str) -> tuple[int, ...]:
        """The shape [out, in] of a compressed weight; UserError if its tensors do not give it."""
        specs = self._stored_specs
        dense, packed = (specs.get(f"{prefix}.{part}") for part in ("weight", "weight_packed"))
        shape: tuple[int, ...] = ()
        if dense is not None and packed is not None:
            raise UserError(
                f"{prefix} has both weight and weight_packed", remedy="fetch the checkpoint again"
            )
        if dense is not None:
            shape = dense.shape[::-1] if prefix in self._turned else dense.shape
        elif packed is not None and len(packed.shape) == 2:
            rows, width = packed.shape
            weights = self.schemes[prefix].weights
            bits = 6 if weights is not None and weights.num_bits == 6 else 4
            shape = (rows, 8 * width // bits)  # FP4 and FP6; integers state their shape
            if (name := f"{prefix}.weight_shape") in specs:
                stated = self._source.read([name])[name].flatten()[:3]
                shape = tuple(int(size) for size in stated)
                if len(shape) != 2 or shape[0] != rows or not self._holds(prefix, width, shape[1]):
                    shape = ()
        if len(shape) != 2:
            raise UserError(
                f"the tensors of {prefix} do not tell the shape of its weight in its format",
                remedy="fetch the checkpoint again",
            )
        return shape

    def _holds(self, prefix: str, width: int, columns: int) -> bool:
        """Whether `width` int32 words hold the codes of `columns` columns exactly."""
        weights = self.schemes[prefix].weights
        if not 0 <= columns <= 32 * width:  # a code has at least a bit: this bounds the memory
            return False
        return weights is None or width == words_in(columns, weights.num_bits)


def decompressed(
    source: WeightSource, config: Mapping[str, Any], names: Iterable[str], dtype: torch.dtype
) -> dict[str, Tensor]:
    """The named tensors of a compressed checkpoint, decompressed; see :class:`Decompressed`."""
    return Decompressed(source, config, dtype).read(names)
