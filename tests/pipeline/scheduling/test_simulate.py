"""Schedules on several workers: order, placement, what moves, and the critical path."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise

import pytest
from rich.console import Console

from pipeline.errors import UserError
from pipeline.graph import Graph, Ref
from pipeline.planning.plan import Plan, make_plan
from pipeline.runner.forecast import forecast
from pipeline.scheduling.critical_path import critical_path, stretches
from pipeline.scheduling.machine import MachineConfig, measured
from pipeline.scheduling.show import print_schedules, unfit
from pipeline.scheduling.simulate import Schedule, schedule
from pipeline.stage import Estimate
from tests.pipeline import sites as fake
from tests.pipeline.graphs import chain, node

GB = 10**9
COSTS: Mapping[str, Estimate] = {
    "load": Estimate(seconds=1),
    "calibrate": Estimate(
        bytes=3 * GB, memory=GB, seconds=2, outputs={"activations": 2 * GB, "gram": GB}
    ),
    "compress": Estimate(bytes=GB, memory=4 * GB, seconds=10, device_memory=GB),
    "propagate": Estimate(bytes=2 * GB, memory=GB, seconds=1),
    "save": Estimate(seconds=5),
}


def apart(count: int) -> Plan:
    """A chain of measurements, each of which feeds a solution of its own; all are saved."""
    nodes = [node("load")]
    for k in range(count):
        fed = {"activations": f"calibrate[{k - 1}].activations"} if k else {}
        nodes += [
            node(
                f"calibrate[{k}]",
                {"source": "load"} | fed,
                outputs=("activations", "gram"),
                index=k,
                layer=k,
            ),
            node(f"compress[{k}]", {"gram": f"calibrate[{k}].gram"}, index=k, layer=k),
        ]
    return planned([*nodes, node("save", {f"l/{k}": f"compress[{k}]" for k in range(count)})])


def planned(nodes: list) -> Plan:
    costed = [replace(each, estimate=COSTS.get(each.site, Estimate())) for each in nodes]
    stages = dict.fromkeys(("calibrate", "compress"), fake.Hand(fake.Blobs()))
    graph = Graph.of(costed, [Ref(node="save", output="out")], stages)
    return make_plan(graph, lambda key: False)


def transient(site: str) -> frozenset[str]:
    return frozenset({"activations", "gram"}) if site == "calibrate" else frozenset()


def seconds(step) -> float:
    return step.node.estimate.seconds


def on(plan: Plan, workers: int, network: float = float("inf")) -> Schedule:
    written = dict.fromkeys(plan.steps, 0)
    return schedule(plan, transient, seconds, workers=workers, network=network, written=written)


def test_one_worker_takes_the_sum_and_is_always_busy() -> None:
    found = on(apart(4), 1)
    assert found.makespan == 1 + 4 * (2 + 10) + 5
    assert found.share == 1 and found.moved == 0


def test_workers_solve_side_by_side_as_the_chain_goes_on() -> None:
    found = on(apart(4), 4)
    assert found.makespan == 1 + 4 * 2 + 10 + 5  # the chain, then the last solution
    assert found.share == pytest.approx((1 + 4 * 12 + 5) / (4 * 24))
    for worker in range(4):  # none does two things at a time
        mine = sorted((p.start, p.end) for p in found.placed.values() if p.worker == worker)
        assert all(end <= start for (_, end), (start, _) in pairwise(mine))


def test_a_node_never_starts_before_its_inputs_are_there() -> None:
    plan = apart(5)
    found = on(plan, 3, network=GB).placed
    for name, placed in found.items():
        assert all(found[r.node].end <= placed.start for r in plan.steps[name].node.inputs.values())


def test_what_was_made_elsewhere_moves_and_takes_time() -> None:
    found = on(apart(2), 2, network=GB / 2)
    elsewhere = [p for p in found.placed.values() if p.moving]
    assert found.moved == sum(p.moving for p in elsewhere) * GB / 2
    assert found.makespan > on(apart(2), 2).makespan


def test_memory_of_a_worker_counts_what_waits_there() -> None:
    assert max(on(apart(1), 1).memory) == 4 * GB + 3 * GB  # solving, with what was measured
    assert max(on(apart(3), 3).device_memory) == GB


def test_the_critical_path_is_the_longest_chain_with_names_together() -> None:
    plan = apart(4)
    path = critical_path(plan, seconds)
    assert path == ("load", *(f"calibrate[{k}]" for k in range(4)), "compress[3]", "save")
    assert [s.name for s in stretches(plan, path, seconds)] == [
        "load",
        "calibrate x 4",
        "compress[3]",
        "save",
    ]
    assert sum(s.seconds for s in stretches(plan, path, seconds)) == on(plan, 4).makespan


def test_a_chain_has_no_use_for_a_second_worker() -> None:
    plan = planned(chain(3))
    one, four = on(plan, 1), on(plan, 4)
    assert one.makespan == four.makespan
    assert four.share < 0.3


def test_seconds_come_from_work_only_where_all_rates_are_known() -> None:
    machine = MachineConfig(rates={"solve": 10.0, "node": float("inf")}, read=100.0)
    assert machine.seconds(Estimate(seconds=7, work={"solve": 5, "node": 1}, reads=200)) == 2.5
    assert machine.seconds(Estimate(seconds=7, work={"solve": 5, "gram": 1})) == 7
    assert machine.seconds(Estimate(seconds=7)) == 7
    with pytest.raises(UserError, match=r"rates\.solve is 0"):
        MachineConfig(rates={"solve": 0.0})


def test_measured_speeds_are_those_of_the_same_machine_only(tmp_path) -> None:
    assert measured(tmp_path, "here") is None
    machine = MachineConfig(name="here", rates={"solve": float("inf")}, read=3.0)
    machine.write(tmp_path)
    assert measured(tmp_path, "here") == machine
    assert measured(tmp_path, "elsewhere") is None


def test_what_does_not_fit_a_worker_is_named_with_its_remedy() -> None:
    plan = apart(2)
    [text] = unfit(plan, MachineConfig(memory=2 * GB))
    assert "compress[" in text and "4.0 GB of host memory" in text and "2.0 GB" in text
    assert unfit(plan, MachineConfig(memory=4 * GB, device_memory=GB)) == []


def test_a_schedule_is_printed_with_a_column_for_each_number_of_workers() -> None:
    plan, out = apart(4), io.StringIO()
    expected = forecast(plan, transient, copy_every=100)
    console = Console(file=out, width=100)
    machine = MachineConfig(name="a rack", network=float("inf"))
    print_schedules(plan, transient, expected, machine, [1, 4], console)
    text = out.getvalue()
    assert "Schedule by a rack" in text and "calibrate x 4 (8.0 s)" in text
    time = next(line for line in text.splitlines() if line.strip().startswith("time"))
    assert time.split() == ["time", "54.0", "s", "24.0", "s"]
    assert "mode=run starts nodes member by member" in text


def test_of_several_workers_none_keeps_a_chain_waiting() -> None:
    """Four solutions of each measurement, two workers: the chain goes on while they are solved."""
    nodes = [node("load")]
    for k in range(4):
        fed = {"activations": f"calibrate[{k - 1}].activations"} if k else {}
        name = f"calibrate[{k}]"
        outputs = ("activations", "gram")
        nodes.append(node(name, {"source": "load"} | fed, outputs=outputs, index=k, layer=k))
        nodes += [
            node(f"compress[{4 * k + n}]", {"gram": f"{name}.gram"}, index=k, layer=k, n=n)
            for n in range(4)
        ]
    solved = {f"l/{k}/{n}": f"compress[{4 * k + n}]" for k in range(4) for n in range(4)}
    plan = planned([*nodes, node("save", solved)])
    names = [each for each in plan.steps if each.startswith("calibrate")]
    one, two = on(plan, 1).placed, on(plan, 2).placed
    assert one["calibrate[1]"].start > one["compress[3]"].start  # members one by one
    assert [two[name].start for name in names] == [1, 3, 5, 7]
    assert on(plan, 2).makespan == pytest.approx(1 + (4 * 2 + 16 * 10) / 2 + 5, abs=5)
