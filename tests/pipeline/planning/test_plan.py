"""Plans: only what is missing, and only what that needs."""

from __future__ import annotations

from dataclasses import replace

from pipeline.graph import Graph, Ref
from pipeline.planning.plan import Plan, make_plan, to_make
from pipeline.runner.schedule import ReadyQueue, Releases
from tests.pipeline.graphs import chain

GRAPH = Graph.of(chain(3), [Ref(node="save", output="out")])


def plan_with(*stored: str) -> Plan:
    keys = set()
    for text in stored:
        name, _, output = text.partition(".")
        keys.add(GRAPH.keys[Ref(node=name, output=output or "out")])
    return make_plan(GRAPH, keys.__contains__)


def statuses(plan: Plan) -> dict[str, str]:
    return {name: step.status for name, step in plan.steps.items()}


def run_order(plan: Plan) -> list[str]:
    queue, order = ReadyQueue(plan), []
    while (name := queue.pop()) is not None:
        order.append(name)
        queue.done(name)
    assert not queue.active()
    return order


def test_nothing_is_built_when_the_targets_are_stored() -> None:
    plan = plan_with("save")
    assert statuses(plan)["save"] == "hit"
    assert not plan.building()


def test_the_last_propagation_is_not_run_since_nobody_reads_it() -> None:
    assert statuses(plan_with())["propagate[2]"] == "idle"


def test_a_killed_run_goes_on_from_the_newest_boundary() -> None:
    plan = plan_with("load", "compress[0]", "compress[1]", "propagate[1].activations")
    assert {s.node.name for s in plan.building()} == {"calibrate[2]", "compress[2]", "save"}


def test_a_missing_boundary_is_made_again_from_the_one_before() -> None:
    plan = plan_with("load", "compress[0]", "compress[1]", "propagate[0].activations")
    assert "propagate[1]" in {s.node.name for s in plan.building()}
    assert statuses(plan)["compress[1]"] == "hit"


def test_only_the_missing_output_of_a_node_is_wanted() -> None:
    plan = plan_with("load", "calibrate[0].activations")
    assert plan.steps["calibrate[0]"].missing == ("gram",)


def test_layers_are_finished_one_after_the_other() -> None:
    assert run_order(plan_with())[:7] == [
        "load",
        "calibrate[0]",
        "compress[0]",
        "propagate[0]",
        "calibrate[1]",
        "compress[1]",
        "propagate[1]",
    ]


def test_a_boundary_is_released_after_its_last_reader_and_not_before() -> None:
    plan = plan_with()
    releases = Releases(plan, lambda site: frozenset({"activations"}))
    boundary = Ref(node="propagate[0]", output="activations")
    freed = {name: releases.finished(name) for name in run_order(plan)}
    assert freed["calibrate[1]"] == []
    assert freed["propagate[1]"] == [boundary]
    assert sum(len(refs) for refs in freed.values()) == 2


def test_a_node_that_runs_makes_what_others_need_and_says_so() -> None:
    keys = [GRAPH.keys[Ref(node=f"calibrate[{k}]", output="activations")] for k in range(3)]
    plan = make_plan(GRAPH, {keys[2]}.__contains__, frozenset(keys[1:]))
    steps = [plan.steps[f"calibrate[{k}]"] for k in range(3)]
    assert [step.missing for step in steps] == [("gram",)] * 3
    assert [step.also for step in steps] == [(), ("activations",), ()]
    assert [step.for_others for step in steps] == [(), ("activations",), ()]
    made = to_make(GRAPH, steps[1], set().__contains__)
    assert made == ["gram", "activations"]
    gram = GRAPH.keys[Ref(node="calibrate[1]", output="gram")]
    assert to_make(GRAPH, steps[1], {gram}.__contains__) == []


def test_nodes_of_one_key_share_what_they_miss() -> None:
    twin = replace(GRAPH.nodes["calibrate[0]"], name="measure[0]", site="measure")
    nodes = [*GRAPH.nodes.values(), twin]
    wanted = Ref(node="measure[0]", output="activations")
    plan = make_plan(Graph.of(nodes, [*GRAPH.targets, wanted]), set().__contains__)
    found = {name: plan.steps[name] for name in ("calibrate[0]", "measure[0]")}
    assert [step.missing for step in found.values()] == [("gram",), ("activations",)]
    assert [step.also for step in found.values()] == [("activations",), ("gram",)]
    assert all(not step.for_others for step in found.values())
