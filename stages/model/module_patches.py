"""Module patches, which replace modules whose weights are not Linears and can be undone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from torch import nn

from pipeline.registry import Registry
from stages.model.experts.cut import Cut
from stages.model.experts.linear_experts import LinearExperts, fits

GROUP = "patch"


class Patched(Protocol):
    """A module patch: a subclass of nn.Module in registry group "patch".

    Its kind is the name of the class that it replaces.
    """

    @classmethod
    def of(cls, module: nn.Module) -> nn.Module:
        """The replacement of `module`, on the meta device; UserError if it does not fit."""
        ...

    def claim(self, target: str, source: int, index: int, operations: tuple[str, ...]) -> str:
        """The parameter of the patch (relative name) that takes one checkpoint tensor.

        transformers would make parameter `target` of the replaced module from it by
        `operations` (class names); it is number `index` of the list that is number `source`.
        "" for a tensor that the model does not use. Raises UserError for unexpected operations.
        """
        ...

    def cuts(
        self, target: str, source: int, stored: str, operations: tuple[str, ...]
    ) -> dict[str, Cut]:
        """Parameters of the patch -> the parts of checkpoint tensor `stored` that they are.

        For a tensor that transformers takes for parameter `target` as it is, or by `operations` on
        one tensor alone. Empty if it holds none. Asked first.
        """
        ...


def patches() -> Mapping[str, type[Patched]]:
    """The patches that plugins register, by the name of the class that they replace."""
    registry = Registry.load()
    return {kind: registry.get(GROUP, kind) for kind in registry.kinds(GROUP)}


def replacements(model: nn.Module, by_class: Mapping[str, type[Patched]]) -> dict[str, nn.Module]:
    """Patched modules by module name.

    A module is replaced by the patch for its class in `by_class`; else, if it is a container of
    experts with transformers' protocol, by its experts as Linears.
    """
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        patch = by_class.get(type(module).__name__)
        if patch is not None:
            found[name] = patch.of(module)
        elif fits(module):
            found[name] = LinearExperts.of(module)
    return found


def swap(model: nn.Module, modules: Mapping[str, nn.Module]) -> dict[str, nn.Module]:
    """Put `modules` into `model`; returns those that they replace, with which swap undoes it."""
    before = {name: model.get_submodule(name) for name in modules}
    for name, module in modules.items():
        model.set_submodule(name, module)
    return before


@contextmanager
def swapped(model: nn.Module, modules: Mapping[str, nn.Module]) -> Iterator[dict[str, nn.Module]]:
    """Context in which `modules` are in `model`; yields those that they replace, by name."""
    before = swap(model, modules)
    try:
        yield before
    finally:
        swap(model, before)
