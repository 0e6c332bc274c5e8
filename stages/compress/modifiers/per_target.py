"""Options of a solver for some modules: another observer, another order of columns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pipeline.errors import UserError
from pipeline.key import Json
from stages.compress.modifiers.base import one_of
from stages.compress.modifiers.observer import check_observer, check_signs, identity_of
from stages.schemes.resolve import matches_name

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
