"""The tensors of a checkpoint that is not here, as transformers would save them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.model.build import config_of, dtype_of, meta_model
from stages.model.names import expected_names

NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Expected:
    """A tensor's shape, and its dtype as safetensors names it."""

    shape: tuple[int, ...]
    dtype: str


def expected_specs(config: Mapping[str, Any]) -> dict[str, Expected]:
    """Tensor name -> what it would be, for a parsed config.json.

    Raises UserError for a model that transformers does not know.
    """
    made = config_of(config)
    stated = dtype_of(made)
    dtype = NAMES.get(stated, "F32")
    shapes = expected_names(meta_model(made, stated))
    return {name: Expected(shape=shape, dtype=dtype) for name, shape in shapes.items()}
