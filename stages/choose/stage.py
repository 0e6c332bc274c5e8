"""Stage `choose`: a format for every module, with the least damage within a budget."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pipeline.errors import UserError
from pipeline.key import Json, canonical
from pipeline.stage import Estimate, Site, Stage, Survey
from stages.choose.chosen_scheme import chosen_scheme
from stages.compute.estimates import SCIPY_PROCESS
from stages.model.blueprint import Blueprint
from stages.schemes.candidates import Units, formats_of
from stages.schemes.chosen import Choice
from stages.schemes.scheme import SchemeConfig

FILE = "choice.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class ChooseConfig:
    """The scheme with its candidates and its budget."""

    scheme: SchemeConfig


@dataclass(frozen=True, eq=False)
class Choose(Stage):
    """Output `out`: choice.json, the candidate of every unit. Its facts are a `Choice`.

    It says under `measure` what the choice went by (`stages.choose.expected_loss`).

    The stages after it plan with the choice, so their keys are those that the same formats have
    when a config spells them out.
    """

    kind = "choose"
    version = 2
    Config = ChooseConfig
    libraries = ("scipy",)
    work = ("stages.choose.run",)
    config: ChooseConfig

    def survey(self, site: Site) -> Survey:
        scheme, units = self.config.scheme, site.facts.get("layers")
        if not isinstance(site.facts.get("model"), Blueprint) or not isinstance(units, Units):
            return Survey()
        budget = None if scheme.budget is None else scheme.budget.bits_per_weight
        if problem := _unmet(budget, units):
            return Survey(problems=(problem,))
        cost: dict[str | None, Estimate] = {
            None: Estimate(bytes=100 * len(units.units), memory=SCIPY_PROCESS, seconds=2.0)
        }
        stored = site.result()
        if stored is None:
            return Survey(
                facts=Choice(
                    scheme=chosen_scheme(scheme, units, guess(units, budget)), known=False
                ),
                notes=(
                    "formats are chosen after `sensitivity` has run; sizes and times of what comes "
                    "after are guesses until then",
                ),
                estimates=cost,
            )
        found: dict[str, Any] = stored.json(FILE)
        names = [unit["candidate"] for unit in found["units"]]
        return Survey(
            facts=Choice(scheme=chosen_scheme(scheme, units, names), known=True),
            notes=(f"chosen for {found['bits_per_weight']:.3f} bits per weight: {told(found)}",),
            estimates=cost,
        )

    def semantics(self, member: str | None) -> Json:
        """The budget, the formats and their places; the scheme leaves the first two to this."""
        del member
        scheme = self.config.scheme
        return {
            "scheme": canonical(scheme),
            "budget": canonical(scheme.budget),
            "candidates": [[name, canonical(g)] for name, g in formats_of(scheme).items()],
        }


def _unmet(budget: float | None, units: Units) -> UserError | None:
    """What is wrong with the budget, if anything is."""
    if budget is None:
        return UserError(
            "scheme.budget.bits_per_weight is null", remedy="give a number, such as 4.5"
        )
    low, high = units.range()
    if budget < low:
        return UserError(
            f"scheme.budget.bits_per_weight is {budget:g}, but these candidates take {low:.4f} "
            f"(lowest) to {high:.4f} (highest) bits per weight, scales included",
            remedy="raise the budget, or add smaller scheme.candidates or larger "
            "scheme.group_sizes",
        )
    return None


def guess(units: Units, budget: float | None) -> list[str]:
    """A candidate for every unit: the largest within the budget, or else the smallest."""
    room = (budget or 0.0) / 8
    chosen = []
    for unit in units.units:
        sizes = unit.candidates
        fitting = [name for name, size in sizes.items() if size <= room * unit.elements]
        chosen.append(
            max(fitting, key=sizes.__getitem__) if fitting else min(sizes, key=sizes.__getitem__)
        )
    return chosen


def told(found: dict[str, Any]) -> str:
    """A choice in words: "W4A16 g64 for 120 modules, W8A16 g128 for 90"."""
    return ", ".join(f"{name} for {count} modules" for name, count in found["counts"].items())
