"""Skeleton of a model: patched, on the meta device, with parts materialized for a while."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.core_model_loading import build_glob_alternation

from pipeline.errors import StageFailed, UserError
from pipeline.stage import Task
from stages.model.blueprint import Blueprint
from stages.model.compute_dtype import computed
from stages.model.meta_model import BUILDING, config_of, meta_model
from stages.model.module_patches import Patched, patches, replacements, swap
from stages.model.traits.transposed_linears import turned


@dataclass(frozen=True, kw_only=True, slots=True)
class Skeleton:
    """A model on the meta device but for the buffers that are computed from the config.

    It belongs to one thread: materializing and replaying change it for a while.
    """

    blueprint: Blueprint
    model: PreTrainedModel
    layers: tuple[nn.Module, ...]
    embedding: nn.Module
    head: nn.Module
    device: torch.device
    replaced: Mapping[str, nn.Module]
    memo: dict[str, Any] = field(default_factory=dict)
    """What was found out about the model, and stays true of it."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of weights and activations."""
        dtype: torch.dtype = getattr(torch, self.blueprint.dtype)
        return dtype

    @property
    def trunks(self) -> tuple[nn.Module, ...]:
        """The modules around the decoder layers that do not hold the lm_head, outermost first.

        One of them gives the lm_head its input. Raises StageFailed if there is none.
        """
        parts, head = self.blueprint.layers[0].name.split("."), f"{self.blueprint.head}."
        around = [".".join(parts[:count]) for count in range(1, len(parts))]
        modules = [self.model.get_submodule(n) for n in around if not head.startswith(f"{n}.")]
        found = tuple(module for module in modules if not isinstance(module, nn.ModuleList))
        if not found:
            raise StageFailed(
                f"{self.blueprint.architecture} has no module around its decoder layers that does "
                "not hold the lm_head as well",
                remedy="report the architecture with its config.json",
            )
        return found

    def unpatch(self) -> None:
        """Undo the module patches; the skeleton cannot be used as such afterwards."""
        swap(self.model, self.replaced)

    @contextmanager
    def materialized(self, tensors: Mapping[str, Tensor]) -> Iterator[None]:
        """Context in which the named parameters and buffers (module-tree names) are these tensors.

        They are moved to the skeleton's device and cast to the dtype that the model wants; meta
        tensors replace them afterwards. Raises StageFailed for a tensor of another shape.
        """
        before: dict[str, Tensor] = {}
        try:
            for name, tensor in tensors.items():
                before[name] = self._put(name, tensor)
            yield
        finally:
            for name, tensor in before.items():
                _assign(self.model, name, tensor)

    def _put(self, name: str, tensor: Tensor) -> Tensor:
        old = _find(self.model, name)
        if old.shape != tensor.shape:
            raise StageFailed(
                f"tensor for {name} is {list(tensor.shape)}, the model has {list(old.shape)}",
                remedy="check that config.json and the weights belong together",
            )
        dtype = self.dtype_of(name, old)
        _assign(self.model, name, tensor.to(device=self.device, dtype=dtype))
        return old

    def dtype_of(self, name: str, old: Tensor) -> torch.dtype:
        """The dtype of parameter `name` once materialized; `old` is what stands for it now.

        transformers keeps some in float32 whatever the model's dtype is.
        """
        plan = self.model._get_dtype_plan(self.dtype)
        if plan and build_glob_alternation(list(plan))[0].search(name):
            return torch.float32
        return old.dtype


def skeleton(
    blueprint: Blueprint,
    *,
    device: str = "cpu",
    by_class: Mapping[str, type[Patched]] | None = None,
) -> Skeleton:
    """Build the skeleton of a blueprint; see :class:`Skeleton`.

    `by_class` are the module patches (default: the registry's).
    """
    model = meta_model(config_of(blueprint.config), blueprint.dtype)
    fill_computed(model, torch.device(device))
    turned(model)
    replaced = swap(model, replacements(model, patches() if by_class is None else by_class))
    return Skeleton(
        blueprint=blueprint,
        model=model,
        layers=tuple(model.get_submodule(name) for name in blueprint.members),
        embedding=model.get_submodule(blueprint.embedding),
        head=model.get_submodule(blueprint.head),
        device=torch.device(device),
        replaced=replaced,
    )


def kept_skeleton(task: Task, device: str) -> Skeleton:
    """The skeleton of the model of `task` in its compute dtype, kept for the worker's next task."""
    model = task.inputs["model"]
    kept: Skeleton = task.resource(
        f"skeleton/{model.key}/{device}",
        lambda: skeleton(computed(Blueprint.load(model), device), device=device),
    )
    return kept


def fill_computed(model: PreTrainedModel, device: torch.device) -> None:
    """Compute the buffers that no checkpoint holds (rotary frequencies, scales).

    The model's own initialization computes them, on the CPU, as in `from_pretrained`.
    """
    computed = dict(model.named_non_persistent_buffers())
    for tensor in model.state_dict(keep_vars=True).values():
        tensor._is_hf_initialized = True
    for name, buffer in computed.items():
        _assign(model, name, torch.empty_like(buffer, device="cpu"))
        module: nn.Module = model.get_submodule(name.rpartition(".")[0])
        module._is_hf_initialized = False  # type: ignore[assignment]  # transformers' own mark
    with BUILDING:
        model.initialize_weights()
    for name in computed:
        _assign(model, name, _find(model, name).to(device))


def _find(model: nn.Module, name: str) -> Tensor:
    parent, _, leaf = name.rpartition(".")
    module = model.get_submodule(parent)
    tensor: Tensor | None = module._parameters.get(leaf)
    if tensor is None:
        tensor = module._buffers.get(leaf)
    if tensor is None:
        raise UserError(
            f"the model has no parameter {name}",
            remedy="the blueprint and the model differ; remove the artifact of node `patch`",
        )
    return tensor


def _assign(model: nn.Module, name: str, tensor: Tensor) -> None:
    parent, _, leaf = name.rpartition(".")
    module = model.get_submodule(parent)
    if leaf in module._buffers:
        module._buffers[leaf] = tensor
    elif isinstance(tensor, nn.Parameter):
        module._parameters[leaf] = tensor
    else:
        module._parameters[leaf] = nn.Parameter(tensor, requires_grad=False)
