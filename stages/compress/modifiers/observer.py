"""Observers by name: how the scales of a weight are first chosen, for all modules or for some.

Light: no torch is imported.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from pipeline.errors import UserError
from pipeline.key import Json
from pipeline.registry import Registry
from stages.compress.modifiers.base import one_of
from stages.schemes.resolve import matches_name

if TYPE_CHECKING:
    from torch import Tensor

    from stages.compress.grid import Grid, QParams

GROUP = "observer"
SHIPPED = (
    "minmax",
    "mse",
    "imatrix",
    "nvfp4_expanded_mse",
    "nvfp4_expanded_imatrix",
    "gram",
    "conditional",
)
RANGES = ("minmax",)
"""Those that take the range as it is, and choose between no scales."""
GRAM = frozenset({"imatrix", "nvfp4_expanded_imatrix", "gram", "conditional"})


class Observer(ABC):
    """An observer of a plugin: an entry of `presswork.observers` under the name it is called by.

    It is made without arguments. With `importance` it is handed the diagonal of the Gram matrix,
    so that calibration gathers one.
    """

    version: ClassVar[int] = 1
    """To be raised when it chooses other scales than before."""
    importance: ClassVar[bool] = False

    @abstractmethod
    def observe(
        self,
        weight: Tensor,
        grid: Grid,
        *,
        importance: Tensor | None,
        global_scale: Tensor | None,
    ) -> QParams:
        """Scales for a weight [out, in], and zero points where `grid` is not symmetric.

        importance: float32 [in] or None. global_scale: float32 [1], where tensor_group weights
        share one.
        """


def check_observer(name: str) -> None:
    """Raise UserError unless an observer of this name is shipped or installed."""
    if name not in SHIPPED:
        one_of("observer", name, (*SHIPPED, *Registry.load().kinds(GROUP)))


def check_signs(kind: str, observer: str, negative_scales: bool) -> None:
    """Raise UserError where negative scales are wanted of an observer that tries none."""
    if negative_scales and observer in RANGES:
        others = ", ".join(name for name in SHIPPED if name not in RANGES)
        raise UserError(
            f"modifier.{kind}.negative_scales is true, but observer {observer} tries no scales",
            remedy=f"say modifier.{kind}.observer=gram, or another that searches: {others}",
        )


def needs_gram(name: str) -> bool:
    """Whether calibration must gather a Gram matrix for it."""
    return name in GRAM if name in SHIPPED else _added(name).importance


def observe_by(name: str) -> Callable[..., QParams]:
    """What chooses the scales; the parameters are those of `Observer.observe`."""
    if name in SHIPPED:
        from stages.compress.observers.catalog import OBSERVERS

        return OBSERVERS[name]
    from stages.compress.deprecated_args import takes_grid

    return takes_grid(_added(name).observe)


def identity_of(name: str) -> list[Json]:
    """What tells it from others of its name, which is in the key already: a plugin's version."""
    added = name not in SHIPPED and name in Registry.load().kinds(GROUP)
    return [_added(name).version] if added else []


def _added(name: str) -> Observer:
    made: Observer = Registry.load().get(GROUP, name)()
    return made


ORDERS = ("static", "none")


@dataclass(frozen=True, kw_only=True, slots=True)
class PerTarget:
    """What a solver does otherwise for the modules of `targets`; null: as for all others."""

    targets: list[str]
    """Names of modules, or re:PATTERN; the first entry that names a module counts."""
    observer: str | None = None
    """How scales are first chosen."""
    actorder: str | None = None
    """The order of columns: static or none (gptq)."""

    def __post_init__(self) -> None:
        if not self.targets:
            raise UserError("targets is empty", remedy="name modules, such as re:.*down_proj")
        if self.observer is not None:
            check_observer(self.observer)
        if self.actorder is not None:
            one_of("actorder", self.actorder, ORDERS)


def entry_for(module: str, entries: Sequence[PerTarget] | None) -> PerTarget | None:
    """The first entry that names a module."""
    for entry in entries or ():
        if any(matches_name(target, (module,)) for target in entry.targets):
            return entry
    return None


def observers_of(observer: str, entries: Sequence[PerTarget] | None) -> tuple[str, ...]:
    """The observer of a solver and those of its entries."""
    return tuple(dict.fromkeys((observer, *(e.observer for e in entries or () if e.observer))))


def identities(observer: str, entries: Sequence[PerTarget] | None) -> Iterator[Json]:
    """What of installed observers counts in the key of a solver that names them."""
    for name in observers_of(observer, entries):
        yield from identity_of(name)


def check_entries(
    kind: str, observer: str, entries: Sequence[PerTarget] | None, *, negative_scales: bool
) -> None:
    """Raise UserError unless every observer is there, and can try negative scales if asked."""
    check_observer(observer)
    for name in observers_of(observer, entries):
        check_signs(kind, name, negative_scales)
