"""A node makes at once all that nodes of its key and other jobs of a sweep need of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.graph import Graph, Ref
from pipeline.planning.expand import expand
from pipeline.planning.site import SitePlan
from pipeline.runner.for_others import others_note, planned_in_passing
from pipeline.runner.local import LocalRunner
from pipeline.store import Store, StoreConfig
from tests.pipeline import sites as fake
from tests.pipeline.runner.test_local import Quiet, site

STEP = fake.Step(fake.Number(value=1))


class Two(fake.Step):
    """A step both of whose outputs are kept."""

    def transient(self) -> frozenset[str]:
        return frozenset()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    fake.CALLS.clear()
    return Store(StoreConfig(dir=str(tmp_path / "store")))


def sites(stage: fake.Step, *, twins: bool) -> dict[str, SitePlan]:
    """Sums of all members are added up; with `twins` their chain is a site of its own."""
    chain = "twin" if twins else "step"
    before = {"source": "source", "before": f"{chain}@previous"}
    made = [
        site(fake.Source(fake.Number(value=5))),
        site(fake.Lister(fake.Count(count=3)), {"source": "source"}),
        site(stage, before, each="lister"),
        site(fake.Total(fake.Number()), {"steps": "step"}, final=True),
    ]
    if twins:
        made.append(site(stage, before, name="twin", each="lister"))
    return {plan.name: plan for plan in made}


def run(
    store: Store, plans: Mapping[str, SitePlan], others: frozenset[str] = frozenset()
) -> tuple[LocalRunner, Graph]:
    runner = LocalRunner(store, workers=1, keep_transient=False, watcher=Quiet(), others=others)
    graph = expand(plans, mode="run", find=store.get, build=runner.result).graph
    runner.run(graph)
    return runner, graph


@pytest.mark.parametrize("stage", [STEP, Two(fake.Number(value=1))])
def test_nodes_of_one_key_run_once_whatever_each_is_wanted_for(
    store: Store, stage: fake.Step
) -> None:
    _, graph = run(store, sites(stage, twins=True))
    assert (
        graph.keys[Ref(node="step[1]", output="sum")]
        == graph.keys[Ref(node="twin[1]", output="sum")]
    )
    assert len(fake.CALLS) == len({"source", "total"}) + 3
    total = store.get(graph.keys[Ref(node="total", output="out")])
    assert total is not None and total.json("value.json") == 6 + 7 + 8


def test_what_other_jobs_need_is_made_in_passing_and_kept(store: Store) -> None:
    plans = sites(Two(fake.Number(value=1)), twins=False)
    graph = expand(plans, mode="plan", find=store.get, build=lambda *_: None).graph
    last = graph.keys[Ref(node="step[2]", output="carry")]  # which this job has no use for
    runner, _ = run(store, plans, frozenset({last, "of a node that is not here"}))
    assert store.has(last)
    assert fake.CALLS == ["source", "step[0]", "step[1]", "step[2]", "total"]
    assert runner.outcomes["step[2]"].status == "built"
    [entry] = [entry for entry in store.entries() if entry.key == last]
    assert entry.node == "step[2]" and entry.output == "carry"


def test_nothing_runs_for_the_sake_of_others_alone(store: Store) -> None:
    plans = sites(Two(fake.Number(value=1)), twins=False)
    _, graph = run(store, plans)
    fake.CALLS.clear()
    last = graph.keys[Ref(node="step[2]", output="carry")]
    runner, _ = run(store, plans, frozenset({last}))
    assert fake.CALLS == [] and not store.has(last)
    assert others_note(runner.planned(graph), runner.transient(graph)) == ()


def test_without_room_it_is_left_to_the_other_jobs(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = sites(Two(fake.Number(value=1)), twins=False)
    graph = expand(plans, mode="plan", find=store.get, build=lambda *_: None).graph
    others = frozenset({graph.keys[Ref(node="step[2]", output="carry")]})
    watcher = Quiet()
    runner = LocalRunner(store, workers=1, keep_transient=False, watcher=watcher, others=others)
    assert planned_in_passing(runner, graph).steps["step[2]"].for_others == ("carry",)
    assert "1 node gathers step.carry as well" in watcher.messages[-1]
    monkeypatch.setattr(Store, "free_bytes", lambda self: -1)
    assert planned_in_passing(runner, graph).steps["step[2]"].for_others == ()
    assert "nothing is gathered for other jobs of the sweep" in watcher.messages[-1]
    assert runner.others == frozenset()


def test_what_is_dropped_after_a_run_is_not_made_for_others(store: Store) -> None:
    plans = sites(STEP, twins=False)
    graph = expand(plans, mode="plan", find=store.get, build=lambda *_: None).graph
    last = graph.keys[Ref(node="step[2]", output="carry")]
    runner, _ = run(store, plans, frozenset({last}))
    assert not store.has(last)
    assert all(not step.for_others for step in runner.planned(graph).steps.values())
