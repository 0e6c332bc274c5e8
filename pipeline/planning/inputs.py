"""Inputs of sites, such as `site@previous`, and the order of sites that follows from them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter

from pipeline.errors import UserError
from pipeline.planning.site import SitePlan

_INPUT = re.compile(r"^(?P<site>\w+)(?:@(?P<which>previous|next|last))?$")

STEPS = {"previous": -1, "next": 1}
"""From a member to its neighbour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where an input of a site comes from.

    `which` is previous or next (of the own member), last, or None for no choice.
    """

    site: str
    which: str | None

    @property
    def neighbour(self) -> bool:
        """Whether it is the node of another member: then it may be of the same site."""
        return self.which in STEPS


def sources_of(plan: SitePlan, sites: Mapping[str, SitePlan]) -> dict[str, Source]:
    """Input name -> where it comes from, for the inputs that the site's stage asks for.

    Raises UserError for an input that names no node of the graph.
    """
    found: dict[str, Source] = {}
    demands = plan.stage.demands()
    for name, text in plan.inputs.items():
        match = _INPUT.match(text)
        if match is None or match["site"] not in sites:
            raise UserError(
                f"input {name!r} of graph node {plan.name!r} is {text!r}, which names no node",
                remedy=f"choose one of {', '.join(sorted(sites))}; one with `each` may be followed "
                "by @previous, @next or @last",
            )
        if match["which"] in STEPS and plan.each is None:
            raise UserError(
                f"input {name!r} of graph node {plan.name!r} says @{match['which']}, but the node "
                "has no `each`"
            )
        if match["which"] == "last" and sites[match["site"]].each is None:
            raise UserError(
                f"input {name!r} of graph node {plan.name!r} is {text!r}, but {match['site']!r} "
                "is one node",
                remedy="leave out @last",
            )
        if demands.get(name, ("out",)):
            found[name] = Source(site=match["site"], which=match["which"])
    return found


def survey_order(
    sites: Mapping[str, SitePlan], sources: Mapping[str, Mapping[str, Source]]
) -> list[str]:
    """Sites so that each follows what it needs to be surveyed; edges to neighbours do not count."""
    edges = {
        name: {s.site for s in sources[name].values() if not s.neighbour}
        | ({plan.each} if plan.each is not None else set())
        for name, plan in sites.items()
    }
    unknown = {each for p in sites.values() if (each := p.each) and each not in sites}
    if unknown:
        raise UserError(f"`each` names {', '.join(sorted(unknown))}, which is no node of the graph")
    try:
        return list(TopologicalSorter(edges).static_order())
    except CycleError as error:
        raise UserError(f"the graph has a cycle: {' -> '.join(error.args[1])}") from error


def upstream(sites: Mapping[str, SitePlan], name: str) -> dict[str, SitePlan]:
    """The sites that `name` needs, itself included, in the order of `sites`.

    They have the inputs left that their stages ask for.
    """
    wanted, stack, asked = {name}, [name], dict[str, dict[str, str]]()
    while stack:
        plan = sites[stack.pop()]
        sources = sources_of(plan, sites)
        asked[plan.name] = {label: plan.inputs[label] for label in sources}
        feeding = {source.site for source in sources.values()}
        new = (feeding | ({plan.each} if plan.each is not None else set())) - wanted
        wanted |= new
        stack.extend(new)
    return {
        each: replace(plan, inputs=asked[each]) for each, plan in sites.items() if each in wanted
    }
