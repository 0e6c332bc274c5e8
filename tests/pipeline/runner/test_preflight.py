"""Room on the disk and in memory, asked for before anything runs."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import psutil
import pytest

from pipeline.errors import UserError
from pipeline.graph import Graph, Ref
from pipeline.planning.plan import Plan, make_plan
from pipeline.runner.for_others import others_note
from pipeline.runner.forecast import written
from pipeline.runner.preflight import check_device, check_room, needed_bytes
from pipeline.stage import Estimate, Stage
from tests.pipeline.graphs import chain
from tests.pipeline.machine.fake_driver import MODELS, fake_gpus

GB = 10**9


def plan(cost: Estimate) -> Plan:
    nodes = [replace(node, estimate=cost) for node in chain(8)]
    return make_plan(Graph.of(nodes, [Ref(node="save", output="out")]), lambda key: False)


def nothing(site: str) -> frozenset[str]:
    return frozenset()


def passing(site: str) -> frozenset[str]:
    return frozenset({"activations", "gram"})


def test_what_is_dropped_again_is_not_summed_up() -> None:
    cost = plan(Estimate(bytes=GB))
    assert needed_bytes(cost, nothing) == len(cost.building()) * GB
    assert needed_bytes(cost, passing) == (1 + 8 + 1 + 4) * GB


def test_too_little_disk_is_told_with_both_numbers() -> None:
    with pytest.raises(UserError, match=r"14\.00 GB in /store, where 2\.00 GB are free"):
        check_room(plan(Estimate(bytes=GB)), passing, 2 * GB, "/store")


def test_what_is_made_for_other_jobs_counts_and_is_told() -> None:
    cost = Estimate(bytes=GB, outputs={"activations": GB // 4, "gram": GB - GB // 4})
    graph = Graph.of(
        [replace(node, estimate=cost) for node in chain(1)], [Ref(node="save", output="out")]
    )
    other = {graph.keys[Ref(node="calibrate[0]", output="activations")]}
    alone, shared = make_plan(graph, lambda key: False), make_plan(graph, lambda key: False, other)
    step = "calibrate[0]"
    assert written(shared.steps[step], nothing) - written(alone.steps[step], nothing) == GB // 4
    assert others_note(alone, nothing) == ()
    assert others_note(shared, nothing) == (
        "1 node gathers calibrate.activations as well, 0.25 GB of results: other jobs of the sweep "
        "need it of the same inputs",
    )


def test_too_little_memory_is_told() -> None:
    with pytest.raises(UserError, match="of memory"):
        check_room(plan(Estimate(memory=10**15)), passing, GB, "/store")


def test_several_processes_need_the_memory_of_several_nodes() -> None:
    cost = plan(Estimate(memory=psutil.virtual_memory().total * 2 // 5))
    check_room(cost, nothing, GB, "store", processes=2)
    with pytest.raises(UserError, match=r"(?s)3 nodes at a time need .*fewer devices"):
        check_room(cost, nothing, GB, "store", processes=3)


def test_a_node_that_does_not_fit_the_gpu_is_told_with_the_setting_that_would() -> None:
    large = Estimate(device_memory=85 * GB, remedy="say batch=2")
    with fake_gpus(*MODELS):
        check_device(plan(large), "cuda:0")
        with pytest.raises(UserError, match=r"86\.00 GB of the GPU; NVIDIA A100 has 85") as caught:
            check_device(plan(large), "cuda:1")
        assert caught.value.remedy == "say batch=2"
        check_device(plan(replace(large, device_memory=84 * GB)), "cuda:1")


def test_a_large_bound_on_what_is_held_counts_on_the_gpu_with_the_value_that_fits() -> None:
    cost = Estimate(device_memory=40 * GB, outputs={"activations": 30 * GB}, bytes=30 * GB)
    made = plan(cost)
    with fake_gpus(*MODELS):
        check_device(made, "cuda:1", passing)  # nobody said how much: what fits
        sites = {node.site: Holder(None, bound=80 * GB) for node in made.graph.nodes.values()}
        graph = replace(made.graph, stages=sites)
        made = make_plan(graph, lambda key: False)
        with pytest.raises(
            UserError, match=r"needs about 101\.00 GB of the GPU, 60\.00 GB"
        ) as caught:
            check_device(made, "cuda:1", passing)
        found = re.search(r"calibrate\.memory=(\d+)", caught.value.remedy)
        assert found is not None
        fits = {site: Holder(None, bound=int(found[1])) for site in sites}
        made = make_plan(replace(graph, stages=fits), lambda key: False)
        check_device(made, "cuda:1", passing)


@dataclass(frozen=True, eq=False)
class Holder(Stage):
    """A stage that says how much of what passes may be held."""

    bound: int = 0

    @property
    def held_memory(self) -> int | None:
        return self.bound


def test_nothing_is_refused_where_the_gpu_is_not_here() -> None:
    with fake_gpus():
        check_device(plan(Estimate(device_memory=10**15)), "cuda")
    with fake_gpus(*MODELS):
        check_device(plan(Estimate(device_memory=10**15)), "cpu")
