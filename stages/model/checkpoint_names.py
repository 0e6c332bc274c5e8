"""Map checkpoint tensor names to module-tree names by transformers' conversion mapping."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import (
    WeightConverter,
    WeightRenaming,
    rename_source_key,
    revert_weight_conversion,
)

from pipeline.errors import UserError
from stages.model.meta_model import config_of, dtype_of, meta_model
from stages.model.module_patches import Patched

NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Names:
    """Mapping of a checkpoint; `found`: parameter of the patched tree -> tensor.

    `rest` are tensors without such a parameter; `converted` are the parameters that transformers
    makes of tensors in `rest` by operations.
    """

    found: Mapping[str, str]
    rest: tuple[str, ...]
    converted: frozenset[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """Expected shape and dtype (as safetensors names it) of a tensor."""

    shape: tuple[int, ...]
    dtype: str


def map_names(
    model: PreTrainedModel, modules: Mapping[str, nn.Module], checkpoint: Iterable[str]
) -> Names:
    """Map the tensors of a checkpoint to the parameters of the patched tree.

    `model` is the unpatched model, `modules` maps module names to their patches. Raises
    UserError for two tensors of one parameter.
    """
    state = model.state_dict()
    conversions = get_model_conversion_mapping(model)
    renamings = [entry for entry in conversions if isinstance(entry, WeightRenaming)]
    converters = [entry for entry in conversions if isinstance(entry, WeightConverter)]
    by_pattern = {p: entry for entry in converters for p in entry.source_patterns}
    found: dict[str, str] = {}
    rest: list[str] = []
    converted: set[str] = set()
    for name in checkpoint:
        renamed, _ = rename_source_key(name, renamings, [], model.base_model_prefix, state)
        target, pattern = rename_source_key(
            name, renamings, converters, model.base_model_prefix, state
        )
        if target not in state and name in state:
            target, pattern = name, None
        if pattern is None:
            parameter: str | None = target if target in state else None
        else:
            parameter = _claimed(renamed, target, pattern, by_pattern[pattern], modules)
            if parameter is None:
                converted.add(target)
        if parameter is None:
            rest.append(name)
        elif parameter in found:
            raise UserError(
                f"tensors {found[parameter]!r} and {name!r} are both {parameter}",
                remedy="remove one of them from the checkpoint",
            )
        else:
            found[parameter] = name
    return Names(found=found, rest=tuple(rest), converted=frozenset(converted))


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


def _claimed(
    renamed: str,
    target: str,
    pattern: str,
    converter: WeightConverter,
    modules: Mapping[str, nn.Module],
) -> str | None:
    """The parameter of a module patch that takes the tensor; None without a patch."""
    module, _, leaf = target.rpartition(".")
    if module not in modules:
        return None
    indices = re.search(re.escape(pattern).replace(r"\*", r"(\d+)"), renamed)
    index = int(indices.group(1)) if indices and indices.groups() else 0
    operations = tuple(type(operation).__name__ for operation in converter.operations)
    claim = cast(Patched, modules[module]).claim(
        leaf, converter.source_patterns.index(pattern), index, operations
    )
    return f"{module}.{claim}"
