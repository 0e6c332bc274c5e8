"""Base class of readers of quantized checkpoints, and checks of their configs and tensors."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.errors import UserError
from stages.formats.input_params import InputParams
from stages.schemes.quant_args import QArgs
from stages.weights.cut_source import Part
from stages.weights.source import TensorSpec, WeightSource

if TYPE_CHECKING:
    from torch import Tensor

    from stages.quantized.stored_weight import Stored

SAFETENSORS = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}
REMEDY = "fetch the checkpoint again, or give the model that it was made from"


@dataclass(frozen=True, kw_only=True, slots=True)
class Module:
    """A quantized Linear: dense shape [out, in], quantization args, and stored tensors.

    `parts` are the local names of its tensors without the bias. `unfit`: why codes and scales are
    not all that there is to it, so that they cannot be kept; None if they are.
    """

    prefix: str
    shape: tuple[int, int]
    grid: QArgs
    parts: tuple[str, ...]
    unfit: str | None = None


class QuantizedSource(ABC):
    """A `WeightSource` over a quantized checkpoint that reads like the dense one.

    Quantized modules are found by their tensors and checked against the config. Weights are
    returned in `dtype` and dequantized one at a time: nothing else of the model is in memory.
    `stored` gives a module's codes and scales instead.
    """

    def __init__(self, source: WeightSource, config: Mapping[str, Any], dtype: str) -> None:
        self.source = source
        self.config = config
        self.dtype = dtype

    @abstractmethod
    def find(self, specs: Mapping[str, TensorSpec]) -> Iterable[Module]:
        """The quantized modules of a checkpoint; UserError for tensors that do not fit."""

    @abstractmethod
    def decode(self, module: Module, parts: Mapping[str, Tensor]) -> Stored:
        """Codes and scales from a module's tensors by local name."""

    def inputs(self, prefix: str) -> InputParams:
        """The calibrated qparams of a module's input, as far as the checkpoint has them."""
        del prefix
        return InputParams()

    def drops(self, name: str) -> bool:
        """Whether a tensor is part of neither the dense model nor a quantized module."""
        del name
        return False

    def part_grid(self, part: Part) -> QArgs | None:
        """The grid of a part of a fused tensor (one expert's Linear); None if it is dense."""
        del part
        return None

    def stored_part(self, part: Part) -> Stored | None:
        """Codes and scales of a part of a fused tensor; None if it is dense."""
        del part
        return None

    def why_dense(self, prefix: str) -> str:
        """The reason why a module is none of `modules`, in words."""
        del prefix
        return "the source has it dense"

    @cached_property
    def modules(self) -> dict[str, Module]:
        """Every quantized module by its name in the checkpoint; no torch is imported."""
        specs = self.source.specs()
        modules = {module.prefix: module for module in self.find(specs)}
        for prefix in modules:
            if f"{prefix}.weight" in specs and "weight" not in modules[prefix].parts:
                raise UserError(f"{prefix} is stored both dense and quantized", remedy=REMEDY)
        return modules

    @cached_property
    def _specs(self) -> dict[str, TensorSpec]:
        parts = {f"{m.prefix}.{part}" for m in self.modules.values() for part in m.parts}
        specs = {
            name: spec
            for name, spec in self.source.specs().items()
            if name not in parts and not self.drops(name)
        }
        for module in self.modules.values():
            name = f"{module.prefix}.weight"
            specs[name] = TensorSpec(name=name, shape=module.shape, dtype=SAFETENSORS[self.dtype])
        return specs

    @property
    def dropped(self) -> list[str]:
        """Names of the tensors that the dense model leaves out, sorted."""
        return sorted(name for name in self.source.specs() if self.drops(name))

    def specs(self) -> Mapping[str, TensorSpec]:
        """Names, shapes and dtypes of the dense model."""
        return self._specs

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        """Dense tensors, in the order of `names`."""
        import torch

        wanted = list(names)
        quantized = {n: p for n in wanted if (p := self._prefix(n)) is not None}
        plain = [name for name in wanted if name not in quantized]
        found = self.source.read(plain, device=device) if plain else {}
        dtype: torch.dtype = getattr(torch, self.dtype)
        for name, prefix in quantized.items():
            stored = self.stored(prefix, device=device)
            with misfits(prefix):
                found[name] = stored.weight().to(dtype)
        return {name: found[name] for name in wanted}

    def stored(self, prefix: str, *, device: str = "cpu") -> Stored:
        """Codes and scales of one module; KeyError if it is not quantized."""
        module = self.modules[prefix]
        names = [f"{prefix}.{part}" for part in module.parts]
        tensors = self.source.read(names, device=device)
        parts = {name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items()}
        with misfits(prefix):
            return self.decode(module, parts)

    def _prefix(self, name: str) -> str | None:
        prefix, _, part = name.rpartition(".")
        return prefix if part == "weight" and prefix in self.modules else None


def check_turned(source: WeightSource, turned: Iterable[str]) -> None:
    """Raise UserError if a quantized source has one of the weights `turned` compressed.

    Those are [in, out] in a dense checkpoint (GPT-2's Conv1D).
    """
    if not isinstance(source, QuantizedSource):
        return
    found = [name for name in turned if name.removesuffix(".weight") in source.modules]
    if found:
        raise UserError(
            f"{found[0]} is compressed, and a Conv1D in the model: its orientation depends on who "
            "wrote it, so that such checkpoints are not read again",
            remedy="give the dense model that it was made from",
        )


@contextmanager
def misfits(prefix: str) -> Iterator[None]:
    """Context that turns failures to decode tensors of a module into a UserError."""
    from stages.formats.module_tensors import MISFITS

    try:
        yield
    except MISFITS as error:
        raise UserError(
            f"the tensors of {prefix} do not fit together: {error}", remedy=REMEDY
        ) from error


def names_of(config: Mapping[str, Any], key: str) -> list[str]:
    """A list of names or patterns in a config, empty if absent; UserError for anything else."""
    value = config.get(key) or []
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"quantization_config.{key} is no list of names", remedy=REMEDY)
    return value


def part_of(config: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A mapping in a config, empty if absent; UserError for anything else."""
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise UserError(f"quantization_config.{key} is no JSON object", remedy=REMEDY)
    return value


def matrix(spec: TensorSpec) -> tuple[int, int]:
    """The shape of a two-dimensional tensor; UserError for others."""
    if len(spec.shape) != 2:
        raise UserError(f"{spec.name} is {list(spec.shape)}, no matrix", remedy=REMEDY)
    return spec.shape[0], spec.shape[1]


def needed(specs: Mapping[str, TensorSpec], prefix: str, part: str) -> TensorSpec:
    """The spec of a tensor that a quantized module must have; UserError if it is missing."""
    spec = specs.get(f"{prefix}.{part}")
    if spec is None:
        raise UserError(f"{prefix} is stored quantized, but has no {part}", remedy=REMEDY)
    return spec


def shaped(spec: TensorSpec, *allowed: tuple[int, ...]) -> None:
    """Raise UserError unless a tensor has one of the `allowed` shapes."""
    if spec.shape not in allowed:
        named = " or ".join(str(list(shape)) for shape in allowed)
        raise UserError(f"{spec.name} is {list(spec.shape)}, not {named}", remedy=REMEDY)


def check_dense(prefix: str, patterns: Iterable[str], option_name: str) -> None:
    """Raise UserError if the config option lists a module as dense that is stored quantized.

    A pattern matches the modules whose dotted name contains it, in whole parts.
    """
    for pattern in patterns:
        if f".{pattern}." in f".{prefix}.":
            raise UserError(
                f"{prefix} is stored quantized, but {option_name} names {pattern!r} as dense",
                remedy=REMEDY,
            )


def option(config: Mapping[str, Any], name: str, allowed: tuple[object, ...], default: Any) -> Any:
    """A value of a quantization_config; UserError unless it is one of `allowed`."""
    value = config.get(name, default)
    if not any(value == known and type(value) is type(known) for known in allowed):
        named = ", ".join("null" if known is None else str(known) for known in allowed)
        raise UserError(
            f"quantization_config.{name} is {value!r}, which is not read here",
            remedy=f"what is read: {named}; else give the model that it was made from",
        )
    return value


def group_size_of(config: Mapping[str, Any], default: int) -> int | None:
    """The `group_size` of a config; None for -1, which means whole rows."""
    value = config.get("group_size", default)
    if value == -1:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UserError(
            f"quantization_config.group_size is {value!r}", remedy="it must be -1 or more than 0"
        )
    return value
