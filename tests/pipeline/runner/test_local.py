"""The local runner on fake stages: reuse, resume, release, retries, workers."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import ManyErrors, UserError
from pipeline.graph import Graph, Ref
from pipeline.planning.expand import expand
from pipeline.planning.site import SitePlan
from pipeline.runner.local import LocalRunner
from pipeline.stage import Stage, Task
from pipeline.store import Store, StoreConfig
from tests.pipeline import sites as fake


class Quiet:
    """A watcher that remembers messages."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def start(self, total: int, reused: int) -> None: ...
    def node_started(self, name: str) -> None: ...
    def update(self, name: str, fraction: float, text: str) -> None: ...
    def node_finished(self, name: str, seconds: float) -> None: ...
    def stop(self) -> None: ...

    def message(self, text: str) -> None:
        self.messages.append(text)


def site(
    stage: Stage,
    inputs: Mapping[str, str] | None = None,
    *,
    name: str = "",
    each: str | None = None,
    final: bool = False,
) -> SitePlan:
    return SitePlan(
        name=name or stage.kind,
        stage=stage,
        each=each,
        inputs=inputs or {},
        final=final,
        publish=None,
    )


def plans(*, count: int = 3, add: int = 1, source: int = 5) -> dict[str, SitePlan]:
    made = [
        site(fake.Source(fake.Number(value=source))),
        site(fake.Lister(fake.Count(count=count)), {"source": "source"}),
        site(
            fake.Step(fake.Number(value=add)),
            {"source": "source", "before": "step@previous"},
            each="lister",
        ),
        site(fake.Total(fake.Number()), {"steps": "step"}, final=True),
    ]
    return {plan.name: plan for plan in made}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    fake.CALLS.clear()
    return Store(StoreConfig(dir=str(tmp_path / "store")))


def runner_for(
    store: Store, sites: Mapping[str, SitePlan], *, workers: int | None = 1
) -> LocalRunner:
    return LocalRunner(
        store,
        workers=workers,
        keep_transient=False,
        watcher=Quiet(),
    )


def go(store: Store, sites: Mapping[str, SitePlan], *, workers: int | None = 1) -> int:
    """Run to the end; returns the total."""
    runner = runner_for(store, sites, workers=workers)
    graph = expand(sites, mode="run", find=store.get, build=runner.result).graph
    runner.run(graph)
    artifact = store.get(graph.keys[Ref(node="total", output="out")])
    assert artifact is not None
    value: int = artifact.json("value.json")
    return value


def graph_of(store: Store, sites: Mapping[str, SitePlan]) -> Graph:
    runner = runner_for(store, sites)
    return expand(sites, mode="run", find=store.get, build=runner.result).graph


def test_a_site_is_expanded_over_the_members_of_another(store: Store) -> None:
    graph = graph_of(store, plans(count=3))
    assert [n for n in graph.nodes if n.startswith("step")] == ["step[0]", "step[1]", "step[2]"]
    assert "before" not in graph.nodes["step[0]"].inputs
    assert graph.nodes["step[2]"].inputs["before"] == Ref(node="step[1]", output="carry")


def test_a_chain_may_run_from_the_last_member_to_the_first(store: Store) -> None:
    sites = plans(count=3)
    sites["step"] = replace(sites["step"], inputs={"source": "source", "before": "step@next"})
    graph = graph_of(store, sites)
    assert "before" not in graph.nodes["step[2]"].inputs
    assert graph.nodes["step[0]"].inputs["before"] == Ref(node="step[1]", output="carry")
    assert go(store, sites) == 6 + 7 + 8
    assert fake.CALLS == ["source", "step[2]", "step[1]", "step[0]", "total"]


def test_only_a_site_with_members_has_neighbours(store: Store) -> None:
    sites = plans()
    sites["total"] = replace(sites["total"], inputs={"steps": "step@next"})
    with pytest.raises(UserError, match="'total' says @next"):
        graph_of(store, sites)


def test_a_graph_is_run_to_its_target(store: Store) -> None:
    assert go(store, plans()) == 6 + 7 + 8
    assert fake.CALLS == ["source", "step[0]", "step[1]", "step[2]", "total"]


def test_the_same_run_again_builds_nothing(store: Store) -> None:
    go(store, plans())
    fake.CALLS.clear()
    assert go(store, plans()) == 21
    assert fake.CALLS == []


def test_a_changed_stage_runs_again_with_what_follows_it_only(store: Store) -> None:
    go(store, plans())
    fake.CALLS.clear()
    go(store, plans(add=2))
    assert fake.CALLS == ["step[0]", "step[1]", "step[2]", "total"]


def test_transient_results_are_gone_at_the_end_and_the_others_stay(store: Store) -> None:
    go(store, plans())
    assert {entry.output for entry in store.entries()} == {"out", "sum"}


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_does_not_change_the_result(store: Store, workers: int) -> None:
    assert go(store, plans(count=5), workers=workers) == 6 + 7 + 8 + 9 + 10


def test_without_a_number_stages_say_how_many_of_their_nodes_go_at_a_time(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    both, real = threading.Barrier(2, timeout=30), fake.Step.run

    def meet(self: fake.Step, task: Task) -> None:
        both.wait()
        real(self, task)

    monkeypatch.setattr(fake.Step, "run", meet)
    monkeypatch.setattr(fake.Step, "beside", 2)
    sites = plans(count=2)
    sites["step"] = site(fake.Step(fake.Number(value=1)), {"source": "source"}, each="lister")
    go(store, sites, workers=None)
    assert sorted(fake.CALLS[-3:]) == ["step[0]", "step[1]", "total"]


def test_a_run_that_failed_goes_on_where_it_stopped(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    healthy = fake.Step.run

    def failing(self: fake.Step, task: Task) -> None:
        if task.index == 2:
            raise UserError("the third step is broken", remedy="mend it")
        healthy(self, task)

    monkeypatch.setattr(fake.Step, "run", failing)
    with pytest.raises(UserError, match=r"step\[2\]: the third step is broken\n  mend it"):
        go(store, plans())
    monkeypatch.setattr(fake.Step, "run", healthy)
    fake.CALLS.clear()
    assert go(store, plans()) == 21
    assert fake.CALLS == ["step[2]", "total"]


def test_a_corrupt_result_is_built_again(store: Store) -> None:
    go(store, plans())
    graph = graph_of(store, plans())
    key = graph.keys[Ref(node="total", output="out")]
    artifact = store.get(key)
    assert artifact is not None
    path = artifact.file("value.json")
    path.chmod(0o644)
    path.write_text("99\n")
    fake.CALLS.clear()
    assert go(store, plans()) == 21
    assert fake.CALLS[-1] == "total"


def test_an_input_that_vanishes_meanwhile_is_built_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = plans()
    graph = graph_of(store, sites)
    healthy = fake.Step.run
    dropped: list[str] = []

    def losing(self: fake.Step, task: Task) -> None:
        healthy(self, task)
        if task.index == 1 and not dropped:
            dropped.append(graph.keys[Ref(node="step[0]", output="sum")])
            store.drop(dropped[0])

    monkeypatch.setattr(fake.Step, "run", losing)
    assert go(store, sites) == 21
    assert dropped


def test_all_problems_of_a_config_are_told_at_once(store: Store) -> None:
    sites = plans(count=12)
    sites["other"] = site(fake.Lister(fake.Count(count=11)), {"source": "source"}, name="other")
    with pytest.raises(ManyErrors, match="count is 12") as caught:
        expand(sites, mode="plan", find=store.get, build=runner_for(store, sites).result)
    assert "count is 11" in str(caught.value)


def test_plan_mode_builds_nothing(store: Store) -> None:
    sites = plans()
    expand(sites, mode="plan", find=store.get, build=runner_for(store, sites).result)
    assert fake.CALLS == []


def test_an_input_that_names_no_site_is_refused(store: Store) -> None:
    sites = plans()
    sites["total"] = site(fake.Total(fake.Number()), {"steps": "stepp"}, final=True)
    with pytest.raises(UserError, match=r"'stepp', which names no node"):
        expand(sites, mode="plan", find=store.get, build=runner_for(store, sites).result)
