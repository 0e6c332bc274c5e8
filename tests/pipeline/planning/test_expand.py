"""What a survey settles: keys, inputs and the work of a node come from it, the stage stays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.graph import Graph, Ref
from pipeline.key import Json
from pipeline.planning.expand import expand
from pipeline.stage import Artifact, Site, Stage, Survey, Task
from pipeline.store import Store, StoreConfig
from tests.pipeline import sites as fake
from tests.pipeline.runner.test_local import plans, runner_for, site


@dataclass(frozen=True, eq=False)
class Learner(Stage):
    """Learns in its survey what it will write, and that it needs no `second` input."""

    kind: ClassVar[str] = "learner"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = fake.Number
    learned: int | None = None

    def demands(self) -> Mapping[str, tuple[str, ...]]:
        return {} if self.learned is None else {"second": ()}

    def semantics(self, member: str | None) -> Json:
        return self.learned

    def survey(self, site: Site) -> Survey:
        settled = replace(self, learned=self.config.value + 1)
        stored = site.result(settled)
        return Survey(facts=stored and stored.json("value.json"), settled=settled)

    def run(self, task: Task) -> None:
        task.outputs["out"].write_json("value.json", [self.learned, sorted(task.inputs)])


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(StoreConfig(dir=str(tmp_path / "store")))


def learning() -> dict[str, object]:
    first = site(fake.Source(fake.Number(value=5)), name="first")
    second = site(fake.Source(fake.Number(value=6)), name="second")
    learner = site(Learner(fake.Number(value=7)), {"first": "first", "second": "second"})
    return {plan.name: plan for plan in (first, second, replace(learner, final=True))}


def test_what_was_learned_is_in_the_key_and_decides_inputs_and_work(store: Store) -> None:
    sites = learning()
    runner = runner_for(store, sites)
    graph = expand(sites, mode="run", find=store.get, build=runner.result).graph
    node = graph.nodes["learner"]
    assert node.params["config"] == 8 and set(node.inputs) == {"first"}
    assert graph.stages["learner"].learned == 8 and sites["learner"].stage.learned is None
    made = store.get(graph.keys[Ref(node="learner", output="out")])
    assert made is not None and made.json("value.json") == [8, ["first"]]


def test_a_survey_asks_for_its_own_result_under_the_key_that_the_graph_has() -> None:
    asked: list[str] = []

    def find(key: str) -> Artifact | None:
        asked.append(key)
        return None

    def build(graph: Graph, ref: Ref) -> Artifact | None:
        raise AssertionError(f"a plan builds {ref}")

    graph = expand(learning(), mode="plan", find=find, build=build).graph
    assert asked == [graph.keys[Ref(node="learner", output="out")]]


def test_a_graph_made_on_the_way_keeps_its_stages(store: Store) -> None:
    sites, given = plans(), list[Graph]()

    def build(graph: Graph, ref: Ref) -> Artifact | None:
        given.append(graph)
        return runner_for(store, sites).result(graph, ref)

    expand(sites, mode="run", find=store.get, build=build)
    assert given[0].stages["source"] is sites["source"].stage
