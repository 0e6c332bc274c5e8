"""From the sites of a config to the nodes of a graph: `each` loops, inputs, surveys."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.metadata import version

from pipeline.errors import ManyErrors, UserError
from pipeline.graph import Graph, Node, Ref
from pipeline.planning.in_parts import PARTS, in_parts
from pipeline.planning.inputs import STEPS, Source, sources_of, survey_order
from pipeline.planning.site import SitePlan
from pipeline.planning.site_view import Build, Find, SiteView
from pipeline.stage import Artifact, Stage, Survey


@cache
def installed(distribution: str) -> str:
    """Its version: read once, for a graph asks for the same few of every node."""
    return version(distribution)


@dataclass(frozen=True, kw_only=True, slots=True)
class Expanded:
    """A graph, what its stages warned about while it was made, and what they note for a plan."""

    graph: Graph
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


@dataclass(slots=True)
class _Expansion:
    """The state of expanding one config; thrown away once the graph stands."""

    sites: Mapping[str, SitePlan]
    mode: str
    find: Find
    build: Build
    stages: dict[str, Stage]
    """Site -> its stage, as its survey settled it once it is done."""
    sources: dict[str, dict[str, Source]] = field(default_factory=dict)
    surveys: dict[str, Survey] = field(default_factory=dict)
    nodes: dict[str, tuple[Node, ...]] = field(default_factory=dict)
    problems: list[UserError] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str) -> None:
        """Survey a site and make its nodes, unless something before it already failed."""
        plan = self.sites[name]
        upstream = {s.site for s in self.sources[name].values() if not s.neighbour}
        if plan.each is not None:
            upstream.add(plan.each)
        if not upstream <= self.surveys.keys():
            return
        try:
            survey = self.stages[name].survey(self.view(name))
        except UserError as error:
            self.problems.append(error)
            return
        self.warnings.extend(survey.warnings)
        self.notes.extend(survey.notes)
        if survey.problems:
            self.problems.extend(survey.problems)
            return
        self.surveys[name] = survey
        self.stages[name] = survey.settled or self.stages[name]
        costs = survey.estimates
        made = self.make_nodes(name, self.stages[name])
        if survey.parts is not None:
            made = tuple(in_parts(made, survey.parts))
            self.stages[f"{name}{PARTS}"] = self.stages[name]
        self.nodes[name] = tuple(
            replace(node, estimate=costs[node.member])
            if node.part is None and node.member in costs
            else node
            for node in made
        )

    def view(self, name: str) -> SiteView:
        """What the stage of a site sees of the rest."""
        return SiteView(
            name=name,
            mode=self.mode,
            sources=self.sources[name],
            stages=self.stages,
            surveys=self.surveys,
            partial=self.partial,
            find=self.find,
            build=self.build,
        )

    def make_nodes(self, name: str, stage: Stage) -> tuple[Node, ...]:
        """The nodes of one site: one, or one for every member of its `each` site."""
        plan = self.sites[name]
        if plan.each is None:
            return (self.make_node(plan, stage, None, None),)
        members = self.surveys[plan.each].members
        if not members:
            raise UserError(
                f"site {name!r} is expanded over {plan.each!r}, which lists no members",
                remedy="point `each` at a site such as patch",
            )
        return tuple(self.make_node(plan, stage, i, member) for i, member in enumerate(members))

    def make_node(
        self, plan: SitePlan, stage: Stage, index: int | None, member: str | None
    ) -> Node:
        return Node(
            name=plan.name if index is None else f"{plan.name}[{index}]",
            site=plan.name,
            kind=stage.kind,
            version=stage.version,
            params={
                "config": stage.semantics(member),
                "member": member,
                "libraries": {name: installed(name) for name in stage.libraries},
            },
            inputs=self.wire(plan, stage, index),
            outputs=stage.outputs,
            member=member,
            index=index,
        )

    def wire(self, plan: SitePlan, stage: Stage, index: int | None) -> dict[str, Ref]:
        """The named inputs of one node, as outputs of other nodes."""
        demands, consulted = stage.demands(), stage.consults()
        inputs: dict[str, Ref] = {}
        for name, source in self.sources[plan.name].items():
            if name in consulted:
                continue
            outputs = demands.get(name, ("out",))
            for label, node in self.feeders(plan, name, source, index):
                for output in outputs:
                    key = label if len(outputs) == 1 else f"{label}.{output}"
                    inputs[key] = Ref(node=node, output=output)
        return inputs

    def feeders(
        self, plan: SitePlan, name: str, source: Source, index: int | None
    ) -> Iterable[tuple[str, str]]:
        """(input name, node name) pairs that one input of a site stands for."""
        each = self.sites[source.site].each
        if each is None:
            yield name, source.site
        elif source.which == "last":
            yield name, f"{source.site}[{len(self.surveys[each].members) - 1}]"
        elif index is None:
            for i in range(len(self.surveys[each].members)):
                yield f"{name}/{i}", f"{source.site}[{i}]"
        else:
            wanted = index + STEPS.get(source.which or "", 0)
            if 0 <= wanted < len(self.surveys[each].members):
                yield name, f"{source.site}[{wanted}]"

    def partial(self, ref: Ref, own: Stage | None) -> Graph:
        """The graph of what leads to one output; its sites must all be expanded.

        But for its own site, where that is being surveyed: `own` is its stage.
        """
        by_name = {node.name: node for nodes in self.nodes.values() for node in nodes}
        stages = self.stages
        if own is not None:
            [by_name[ref.node]] = self.make_nodes(ref.node, own)
            stages = {**stages, ref.node: own}
        wanted, stack = {}, [ref.node]
        while stack:
            node = by_name[stack.pop()]
            wanted[node.name] = node
            stack.extend(r.node for r in node.inputs.values() if r.node not in wanted)
        return Graph.of(wanted.values(), (ref,), stages)


def never(graph: Graph, ref: Ref) -> Artifact | None:
    """The `build` of a plan, which builds nothing."""
    del graph
    raise AssertionError(f"a plan asked to build {ref}")


def expand(
    sites: Mapping[str, SitePlan],
    *,
    mode: str,
    find: Find,
    build: Build,
) -> Expanded:
    """Make the graph that a config's sites describe.

    `find` looks a key up in the store. `build` makes one node's result, for stages that must look
    at an input to know their members; it is called in mode `run` only. Raises UserError or
    ManyErrors with every problem that the stages found.
    """
    stages = {name: plan.stage for name, plan in sites.items()}
    state = _Expansion(sites=sites, mode=mode, find=find, build=build, stages=stages)
    state.sources = {name: sources_of(plan, sites) for name, plan in sites.items()}
    for name in survey_order(sites, state.sources):
        state.add(name)
    if state.problems:
        # once for all stages that met the same mistake
        told = list({str(problem): problem for problem in state.problems}.values())
        raise told[0] if len(told) == 1 else ManyErrors(told)
    targets = [
        Ref(node=node.name, output=output)
        for name, plan in sites.items()
        if plan.final
        for node in state.nodes[name]
        if node.part is None
        for output in node.outputs
    ]
    nodes = [node for made in state.nodes.values() for node in made]
    return Expanded(
        graph=Graph.of(nodes, targets, state.stages),
        warnings=tuple(dict.fromkeys(state.warnings)),
        notes=tuple(dict.fromkeys(state.notes)),
    )


def towards(graph: Graph, site: str) -> Graph:
    """The graph with all nodes of one site as its targets."""
    targets = [
        Ref(node=node.name, output=output)
        for node in graph.nodes.values()
        if node.site == site
        for output in node.outputs
    ]
    return replace(graph, targets=tuple(targets))
