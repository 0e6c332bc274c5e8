"""What a plan says will be held, spilled and written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import psutil
import pytest

from pipeline.errors import UserError
from pipeline.graph import Graph, Ref
from pipeline.planning.plan import Plan, make_plan
from pipeline.runner.forecast import forecast
from pipeline.runner.preflight import check_room
from pipeline.stage import Estimate
from tests.pipeline import sites as fake
from tests.pipeline.graphs import chain

GB = 10**9
BOUNDARY, GRAM, WEIGHTS, WORK = 8 * GB, 2 * GB, GB, 3 * GB
COSTS: Mapping[str, Estimate] = {
    "calibrate": Estimate(
        bytes=BOUNDARY + GRAM, memory=WORK, outputs={"activations": BOUNDARY, "gram": GRAM}
    ),
    "compress": Estimate(bytes=WEIGHTS, memory=WORK),
    "propagate": Estimate(bytes=BOUNDARY, memory=WORK, outputs={"activations": BOUNDARY}),
}


def plan(*, memory: int | None = None) -> Plan:
    nodes = [replace(node, estimate=COSTS.get(node.site, Estimate())) for node in chain(4)]
    stage = fake.Hand(fake.Blobs(memory=memory))
    stages = dict.fromkeys(("calibrate", "propagate"), stage)
    return make_plan(Graph.of(nodes, [Ref(node="save", output="out")], stages), lambda key: False)


def compressed(site: str) -> frozenset[str]:
    """Transient outputs of a chain of compressed layers."""
    names = {"calibrate": {"activations", "gram"}, "propagate": {"activations"}}
    return frozenset(names.get(site, ()))


def nothing(site: str) -> frozenset[str]:
    return frozenset()


def test_two_boundaries_or_one_with_its_statistics_are_held_at_a_time() -> None:
    found = forecast(plan(memory=100 * GB), compressed, copy_every=100)
    assert found.held == 2 * BOUNDARY
    assert found.spilled == found.copied == 0
    assert found.memory == WORK + 2 * BOUNDARY


def test_only_weights_are_written_and_now_and_then_a_copy() -> None:
    found = forecast(plan(), compressed, copy_every=2)
    assert sum(found.written[f"calibrate[{k}]"] for k in range(4)) == 0
    assert sum(found.written[f"compress[{k}]"] for k in range(4)) == 4 * WEIGHTS
    assert found.copied == BOUNDARY  # the second of three


def test_beyond_the_bound_it_is_on_the_disk() -> None:
    found = forecast(plan(memory=10 * GB), compressed, copy_every=100)
    assert found.limit == 10 * GB and found.spilled == 6 * GB
    assert found.memory == WORK + 10 * GB


def test_without_a_bound_it_is_a_quarter_of_this_machine() -> None:
    found = forecast(plan(), compressed, copy_every=100)
    assert found.limit == psutil.virtual_memory().total // 4


def test_on_a_gpu_its_memory_comes_first_and_leaves_room_for_every_node() -> None:
    found = forecast(plan(), compressed, copy_every=100, device_bytes=80 * GB)
    assert found.device_limit == 20 * GB and found.on_device == 16 * GB and found.in_memory == 0
    assert found.device_memory == 16 * GB and found.memory == WORK
    small = forecast(plan(), compressed, copy_every=100, device_bytes=24 * GB)
    assert small.on_device == 6 * GB
    assert small.on_device + small.in_memory + small.spilled == small.held


def test_where_all_is_kept_nothing_is_held() -> None:
    found = forecast(plan(), nothing, copy_every=1)
    assert found.held == found.copied == 0 and found.memory == WORK
    # only what is wanted of a node is written
    assert found.written["calibrate[0]"] == GRAM and found.written["propagate[0]"] == BOUNDARY


def test_a_run_that_cannot_fit_is_told_what_would() -> None:
    too_much = plan(memory=10**15)
    nodes = [
        replace(n, estimate=replace(n.estimate, outputs={"activations": 10**14}))
        for n in too_much.graph.nodes.values()
    ]
    graph = Graph.of(nodes, too_much.graph.targets, too_much.graph.stages)
    with pytest.raises(UserError, match=r"held for later ones(.|\n)*lower calibrate.memory, "):
        check_room(make_plan(graph, lambda key: False), compressed, 10**16, "/store")
