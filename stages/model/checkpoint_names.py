"""Map checkpoint tensor names to module-tree names by transformers' conversion mapping."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    Concatenate,
    WeightConverter,
    WeightRenaming,
    rename_source_key,
    revert_weight_conversion,
)

from pipeline.errors import UserError
from stages.model.experts.cut import Cut
from stages.model.meta_model import config_of, dtype_of, meta_model
from stages.model.module_patches import Patched

NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """Mapping of a checkpoint; `found`: parameter of the patched tree -> tensor.

    `cuts`: name in `found` -> the part of a fused tensor that it stands for. `joins`: parameter ->
    the tensors in `rest` whose rows it has. `rest` are tensors
    without a parameter; `converted` are the parameters that transformers makes of tensors in `rest`
    by operations.
    """

    found: Mapping[str, str]
    cuts: Mapping[str, Cut]
    joins: Mapping[str, tuple[str, ...]]
    rest: tuple[str, ...]
    converted: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """Expected shape and dtype (as safetensors names it) of a tensor."""

    shape: tuple[int, ...]
    dtype: str


def map_names(
    model: PreTrainedModel,
    modules: Mapping[str, nn.Module],
    checkpoint: Mapping[str, tuple[int, ...]],
) -> Names:
    """Map the tensors of a checkpoint (name -> shape) to the parameters of the patched tree.

    `model` is the unpatched model, `modules` maps module names to their patches. Raises
    UserError for two tensors of one parameter.
    """
    mapping = _Mapping(model, modules)
    for name, shape in checkpoint.items():
        mapping.take(name, shape)
    return Names(
        found=mapping.found,
        cuts=mapping.cuts,
        rest=tuple(mapping.rest),
        converted=frozenset(mapping.converted - mapping.joins().keys()),
        joins=mapping.joins(),
    )


class _Mapping:
    """Tensors of a checkpoint, mapped one after the other."""

    def __init__(self, model: PreTrainedModel, modules: Mapping[str, nn.Module]) -> None:
        conversions = get_model_conversion_mapping(model)
        self.renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
        self.converters = [entry for entry in conversions if isinstance(entry, WeightConverter)]
        self.by_pattern = {p: entry for entry in self.converters for p in entry.source_patterns}
        self.prefix = model.base_model_prefix
        self.state = model.state_dict()
        self.modules = modules
        self.patched = {
            f"{name}.{parameter}" for name, m in modules.items() for parameter in m.state_dict()
        }
        self.found: dict[str, str] = {}
        self.cuts: dict[str, Cut] = {}
        self.rest: list[str] = []
        self.converted: set[str] = set()
        self.pieces: dict[str, list[str | None]] = {}

    def take(self, name: str, shape: tuple[int, ...]) -> None:
        renamed, _ = rename_source_key(name, self.renamings, [], self.prefix, self.state)
        target, pattern = rename_source_key(
            name, self.renamings, self.converters, self.prefix, self.state
        )
        if target not in self.state and name in self.state:
            target, pattern = name, None
        per_expert = next((n for n in (renamed, name) if n in self.patched), None)
        if per_expert is not None:  # the names of the patch, whatever transformers calls them
            self._claim(per_expert, name)
        elif self._cut(target, pattern, name, shape):
            return
        elif pattern is None:
            self._claim(target if target in self.state else None, name)
        else:
            parameter = self._claimed(renamed, target, pattern)
            if parameter is None and target.rpartition(".")[0] not in self.modules:
                self._converted(target, pattern, name)
            self._claim(parameter, name)

    def _converted(self, target: str, pattern: str, name: str) -> None:
        """Note a parameter that transformers makes of several tensors, or of one by operations."""
        self.converted.add(target)
        converter = self.by_pattern[pattern]
        operations = converter.operations
        if len(operations) == 1 and isinstance(operations[0], Concatenate):
            if operations[0].dim == 0 and len(converter.target_patterns) == 1:
                patterns = converter.source_patterns
                pieces = self.pieces.setdefault(target, [None] * len(patterns))
                pieces[patterns.index(pattern)] = name

    def joins(self) -> dict[str, tuple[str, ...]]:
        """Parameters that are some tensors' rows, one tensor after the other -> those tensors."""
        present = {t: tuple(p for p in pieces if p) for t, pieces in self.pieces.items()}
        return {t: parts for t, parts in present.items() if len(parts) == len(self.pieces[t])}

    def _claim(self, parameter: str | None, name: str) -> None:
        if parameter is None:
            self.rest.append(name)
        elif parameter in self.found:
            raise UserError(
                f"tensors {self.found[parameter]!r} and {name!r} are both {parameter}",
                remedy="remove one of them from the checkpoint",
            )
        else:
            self.found[parameter] = name

    def _cut(self, target: str, pattern: str | None, name: str, shape: tuple[int, ...]) -> bool:
        """Map the parts of a fused tensor; False if it is not one that a patch can take apart."""
        module, leaf = self._patched(target)
        cuts_of = getattr(self.modules.get(module), "cuts", None)
        if cuts_of is None:
            return False
        operations: tuple[str, ...] = ()
        source = 0
        if pattern is not None:
            converter = self.by_pattern[pattern]
            operations = _names(converter)
            source = converter.source_patterns.index(pattern)
        wanted = self.state.get(target)
        if operations == ("Transpose",) and wanted is not None and shape == tuple(wanted.shape):
            operations = ()  # transformers leaves what has the right shape as it is
        cuts: Mapping[str, Cut] = cuts_of(leaf, source, name, operations)
        base = _written(name, module, leaf)
        for local, cut in cuts.items():
            self._claim(f"{module}.{local}", f"{base}.{local}")
            self.cuts[f"{base}.{local}"] = cut
        return bool(cuts)

    def _patched(self, target: str) -> tuple[str, str]:
        """The patched module that a parameter is of, and the parameter's name in it."""
        parts = target.split(".")
        for count in range(len(parts) - 1, 0, -1):
            if (module := ".".join(parts[:count])) in self.modules:
                return module, ".".join(parts[count:])
        return target.rpartition(".")[0], parts[-1]

    def _claimed(self, renamed: str, target: str, pattern: str) -> str | None:
        """The parameter of a module patch that takes the tensor; None if none does."""
        module, _, leaf = target.rpartition(".")
        if module not in self.modules:
            return None
        converter = self.by_pattern[pattern]
        claim = cast(Patched, self.modules[module]).claim(
            leaf,
            converter.source_patterns.index(pattern),
            index_in(renamed, pattern),
            _names(converter),
        )
        return f"{module}.{claim}" if claim else None


def index_in(name: str, pattern: str) -> int:
    """The number that stands for `*` in a source pattern of transformers; 0 if there is none.

    Patterns are regular expressions in which `*` alone means any text: `\\.experts.*.w1.weight`.
    """
    found = re.search(pattern.replace(".*.", r"\.(\d+)\."), name)
    return int(found.group(1)) if found and found.groups() else 0


def _names(converter: WeightConverter) -> tuple[str, ...]:
    return tuple(type(operation).__name__ for operation in converter.operations)


def _written(stored: str, module: str, leaf: str) -> str:
    """The name of a container of experts in a checkpoint that holds the tensor `stored` of it.

    `a.mlp.experts.gate_up_proj` is of `a.mlp.experts`, `a.block_sparse_moe.input_linear.weight` of
    `a.block_sparse_moe.experts`: engines look for one expert's tensors there. `leaf` is the name of
    the tensor's parameter in the module.
    """
    if "." in leaf and stored.endswith(f".{leaf}"):
        return stored.removesuffix(f".{leaf}")
    leaf = module.rpartition(".")[2]
    parent = stored.removesuffix(".weight").rpartition(".")[0]
    return parent if parent.rpartition(".")[2] == leaf else f"{parent}.{leaf}"


def expected_names(model: PreTrainedModel) -> dict[str, tuple[int, ...]]:
    """Tensor name -> shape in the checkpoint that an (unpatched, meta) model would save."""
    state: dict[str, Tensor] = dict(model.state_dict())
    for tied in model.all_tied_weights_keys:
        state.pop(tied, None)
    return {
        name: tuple(tensor.shape) for name, tensor in revert_weight_conversion(model, state).items()
    }


def expected_specs(config: Mapping[str, Any]) -> dict[str, Expected]:
    """Tensor name -> shape and dtype in the checkpoint of a parsed config.json.

    Raises UserError for a model that transformers does not know.
    """
    class_config = config_of(config)
    stated = dtype_of(class_config)
    dtype = NAMES.get(stated, "F32")
    shapes = expected_names(meta_model(class_config, stated))
    return {name: Expected(shape=shape, dtype=dtype) for name, shape in shapes.items()}
