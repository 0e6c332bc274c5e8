"""Attention states: queries, keys and values as a decoder layer's attention is given them.

They are seen where transformers hands them to the attention function that a config names, so any
model whose attention goes through that interface can be watched, and no model class is changed.
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
"""(module name, one of STATES, state [b, heads, T, head size]) -> the state to go on with."""


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
    """Within it every state of these layers goes through `on_state`.

    Nothing is seen of attention that does not go through transformers' interface.
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

    own = f"presswork_states_{id(skeleton)}"
    ALL_ATTENTION_FUNCTIONS[own] = watched
    ALL_MASK_ATTENTION_FUNCTIONS[own] = ALL_MASK_ATTENTION_FUNCTIONS[before]
    skeleton.model.set_attn_implementation(own)
    try:
        yield
    finally:
        skeleton.model.set_attn_implementation(before)
        del ALL_ATTENTION_FUNCTIONS[own]
        del ALL_MASK_ATTENTION_FUNCTIONS[own]


def _function(implementation: str, module: nn.Module | None) -> Callable[..., Any]:
    """What transformers calls under that name; each modeling file has its own eager function."""
    found: Mapping[str, Callable[..., Any]] = ALL_ATTENTION_FUNCTIONS
    if implementation in found:
        return found[implementation]
    if module is None:
        raise StageFailed("the layer has no attention whose cache could be quantized")
    eager: Callable[..., Any] = sys.modules[type(module).__module__].eager_attention_forward
    return eager
