"""The choice of formats, as the facts that the stages after `choose` plan with."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from pipeline.errors import UserError
from pipeline.stage import Site
from stages.schemes.scheme import SchemeConfig

CHOICE = "choice"
"""The input whose facts are a `Choice`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """The facts of stage `choose`: a scheme in which every module has its format.

    `known` is false while the choice is yet to be made: `scheme` is then a guess for estimates.
    """

    scheme: SchemeConfig
    known: bool


class HasScheme(Protocol):
    @property
    def scheme(self) -> SchemeConfig: ...


C = TypeVar("C", bound=HasScheme)


def settled(config: C, site: Site) -> C:
    """`config` with the chosen scheme in place of one with candidates; others as they are.

    Raises UserError if no node of the graph chooses.
    """
    if not config.scheme.candidates:
        return config
    choice = site.facts.get(CHOICE)
    if not isinstance(choice, Choice):
        raise UserError(
            "scheme.candidates: nothing in this graph chooses among them",
            remedy="say graph=budget; scheme=auto does so by itself",
        )
    changed: Any = replace(config, scheme=choice.scheme)  # type: ignore[type-var]
    return changed  # type: ignore[no-any-return]


def guessed(site: Site) -> bool:
    """Whether the scheme that `settled` gives is a guess."""
    choice = site.facts.get(CHOICE)
    return isinstance(choice, Choice) and not choice.known
