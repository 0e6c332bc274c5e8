"""Hooks on attention states: the queries, keys and values that a layer's attention is given.

They are intercepted where transformers passes them to the attention function that the config names.
So any model whose attention uses that interface can be hooked, and no model class is changed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from pipeline.errors import StageFailed
from stages.model.blueprint import STATES
from stages.model.skeleton import Skeleton

PROJECTIONS = ("k_proj", "qkv_proj", "query_key_value", "kv_a_proj_with_mqa", "c_attn")
OnState = Callable[[str, str, Tensor], Tensor]
"""(module name, one of STATES, state [b, heads, T, head size]) -> the state to continue with."""


def attention_modules(skeleton: Skeleton, layers: Iterable[int]) -> dict[str, nn.Module]:
    """The attention modules of some decoder layers by module-tree name."""
    return {
        f"{skeleton.blueprint.members[index]}.{name}": module
        for index in layers
        for name, module in skeleton.layers[index].named_modules()
        if "attention" in type(module).__name__.lower()
        and any(hasattr(module, projection) for projection in PROJECTIONS)
    }


@contextmanager
def attention_states(
    skeleton: Skeleton, layers: Iterable[int], on_state: OnState
) -> Iterator[None]:
    """Context in which every attention state of these layers goes through `on_state`.

    Attention that does not use transformers' interface is not hooked.
    """
    modules = attention_modules(skeleton, layers)
    names = {id(module): name for name, module in modules.items()}
    config: Any = skeleton.model.config.get_text_config(decoder=True)
    before: str = config._attn_implementation
    plain = _function(before, next(iter(modules.values()), None))

    def watched(module: nn.Module, q: Tensor, k: Tensor, v: Tensor, *args: Any, **kw: Any) -> Any:
        name = names.get(id(module))
        if name is not None:
            q, k, v = (on_state(name, s, x) for s, x in zip(STATES, (q, k, v), strict=True))
        return plain(module, q, k, v, *args, **kw)

    implementation = f"presswork_states_{id(skeleton)}"
    ALL_ATTENTION_FUNCTIONS[implementation] = watched
    ALL_MASK_ATTENTION_FUNCTIONS[implementation] = ALL_MASK_ATTENTION_FUNCTIONS[before]
    skeleton.model.set_attn_implementation(implementation)
    try:
        yield
    finally:
        skeleton.model.set_attn_implementation(before)
        del ALL_ATTENTION_FUNCTIONS[implementation]
        del ALL_MASK_ATTENTION_FUNCTIONS[implementation]


def _function(implementation: str, module: nn.Module | None) -> Callable[..., Any]:
    """transformers' function of that name; each modeling file has an eager one of its own."""
    functions: Mapping[str, Callable[..., Any]] = ALL_ATTENTION_FUNCTIONS
    if implementation in functions:
        return functions[implementation]
    if module is None:
        raise StageFailed("the layer has no attention whose cache could be quantized")
    eager: Callable[..., Any] = sys.modules[type(module).__module__].eager_attention_forward
    return eager
