"""Module patches: what replaces a module class whose weights are not Linears, and puts it back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol, cast

from torch import nn

from pipeline.registry import Registry

GROUP = "patch"


class Patched(Protocol):
    """What a class of registry group "patch" gives; its kind is the class name that it replaces.

    It is a subclass of nn.Module.
    """

    @classmethod
    def of(cls, module: nn.Module) -> nn.Module:
        """The replacement of `module`, on the meta device; UserError if it does not fit."""
        ...

    def claim(self, target: str, source: int, index: int, operations: tuple[str, ...]) -> str:
        """The own parameter (relative name) that takes one checkpoint tensor.

        transformers would make parameter `target` of the replaced module from it by
        `operations` (class names); it is number `index` of the list that is number `source`.
        Raises UserError where the operations are not the expected ones.
        """
        ...


def patches() -> Mapping[str, type[Patched]]:
    """All known patches by the name of the class that they replace."""
    registry = Registry.load()
    return {kind: registry.get(GROUP, kind) for kind in registry.kinds(GROUP)}


def patched_modules(model: nn.Module, names: Iterable[str]) -> dict[str, Patched]:
    """The modules that have taken the place of others, by name."""
    return {name: cast(Patched, model.get_submodule(name)) for name in names}


def apply_patches(model: nn.Module, by_class: Mapping[str, type[Patched]]) -> dict[str, nn.Module]:
    """Replace every module of `model` whose class has a patch.

    Returns the replaced modules by name, which `revert_patches` takes.
    """
    found = {
        name: module
        for name, module in model.named_modules()
        if type(module).__name__ in by_class
    }
    for name, module in found.items():
        _set(model, name, by_class[type(module).__name__].of(module))
    return found


def revert_patches(model: nn.Module, replaced: Mapping[str, nn.Module]) -> None:
    """Put the replaced modules back."""
    for name, module in replaced.items():
        _set(model, name, module)


@contextmanager
def patched(
    model: nn.Module, by_class: Mapping[str, type[Patched]]
) -> Iterator[dict[str, nn.Module]]:
    """Within it, `model` is patched; yields the replaced modules by name."""
    replaced = apply_patches(model, by_class)
    try:
        yield replaced
    finally:
        revert_patches(model, replaced)


def _set(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
