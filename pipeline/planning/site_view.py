"""View that a stage has of its site while the graph is expanded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.graph import Graph, Ref
from pipeline.import_ahead import make_ready
from pipeline.planning.inputs import Source
from pipeline.stage import Artifact, Stage, Survey

Find = Callable[[str], "Artifact | None"]
"""Looks a key up in the store."""

Build = Callable[[Graph, Ref], "Artifact | None"]
"""Gives the result of a node of a graph, building it where that is allowed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteView:
    """A site and its inputs (the protocol `pipeline.stage.Site`).

    `stages` and `surveys` are those of all sites so far. `partial` gives the graph of what leads to
    an output; where that is this site's own, it is told the stage. `find` looks a key up in the
    store, and `build` makes a result.
    """

    name: str
    mode: str
    sources: Mapping[str, Source]
    stages: Mapping[str, Stage]
    surveys: Mapping[str, Survey]
    partial: Callable[[Ref, Stage | None], Graph]
    find: Find
    build: Build

    @property
    def facts(self) -> Mapping[str, Any]:
        sources, surveys = self.sources.items(), self.surveys
        return {name: surveys[s.site].facts for name, s in sources if s.site in surveys}

    def prepare(self) -> None:
        if self.mode == "run":
            make_ready(self.stages.values())

    def artifact(self, name: str) -> Artifact | None:
        source = self.sources[name]
        ref = Ref(node=source.site, output="out")
        graph = self.partial(ref, None)
        found = self.find(graph.keys[ref])
        if found is not None or self.mode != "run":
            return found
        return self.build(graph, ref)

    def own(self, stage: Stage | None = None) -> Artifact | None:
        graph, ref = self._leading_here(stage)
        return self.find(graph.keys[ref])

    def result(self, stage: Stage | None = None) -> Artifact | None:
        graph, ref = self._leading_here(stage)
        found = self.find(graph.keys[ref])
        if found is not None or self.mode != "run":
            return found
        return self.build(graph, ref)

    def _leading_here(self, stage: Stage | None) -> tuple[Graph, Ref]:
        ref = Ref(node=self.name, output="out")
        own = stage or self.stages[self.name]
        return self.partial(ref, own), ref
