"""Initialization that transformers runs over every model that it has loaded, tried on meta tensors.

`from_pretrained` ends with the class's `_init_weights` for each module. Tensors that were read are
marked and stay as they are, but the function is called all the same, and many ask a module for its
`weight`, which packed formats do not have: loading raises. So the same calls are made here.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.initialization import guard_torch_init_functions

from stages.model.meta_model import BUILDING, NO_MODEL, meta_model
from stages.verify.transformers_load import Loading, Problem

KIND = "compressed modules whose weight its initialization asks for"


def initialization_problems(loading: Loading) -> Iterator[Problem]:
    """Modules that transformers fails to initialize because they, or parts of them, are compressed.

    What fails for the dense model as well fails because nothing has values on the meta device.
    """
    model = loading.conversions.model
    raised = _initialized(model)
    if not raised:
        return
    dense = _initialized(meta_model(model.config, "float32"))
    for name, error in raised.items():
        if name in dense:
            continue
        module = model.get_submodule(name)
        packed = isinstance(module, nn.Linear | nn.Embedding) and not hasattr(module, "weight")
        text = "has no weight but packed codes" if packed else f"is not initialized: {error}"
        yield Problem(name=f"{name}.weight", text=f"{name} {text}", kind=KIND)


def _initialized(model: PreTrainedModel) -> dict[str, str]:
    """Exceptions of the initialization of a model all of whose tensors were read, by module."""
    for tensor in model.state_dict(keep_vars=True).values():
        tensor._is_hf_initialized = True
    raised: dict[str, str] = {}
    # another thread must not build a model while functions of torch are replaced
    with BUILDING, torch.no_grad(), guard_torch_init_functions():
        for name, module, owner in _owned(model, "", model):
            try:
                owner._init_weights(module)
            except NO_MODEL as error:
                raised[name] = f"{type(error).__name__}: {error}"
    return raised


def _owned(
    module: nn.Module, name: str, owner: PreTrainedModel
) -> Iterator[tuple[str, nn.Module, PreTrainedModel]]:
    """Modules, parts before wholes, with the innermost model whose part each is."""
    for local, child in module.named_children():
        inner = child if isinstance(child, PreTrainedModel) else owner
        yield from _owned(child, f"{name}.{local}" if name else local, inner)
    yield name, module, owner
