"""The pool of workers, with workers that only note their orders: placing, refusing, replacing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from pipeline.errors import StageFailed, UserError
from pipeline.graph import Graph
from pipeline.planning.plan import Plan, make_plan
from pipeline.runner.held import HeldResult, Holdings
from pipeline.runner.schedule import Lost, Outcome, Vanished
from pipeline.runner.transients import Transients
from pipeline.runner.workers.messages import (
    Build,
    Computed,
    Done,
    Ended,
    Failed,
    Follow,
    Forget,
    Order,
    Ready,
)
from pipeline.runner.workers.pool import Hear, Pool
from pipeline.runner.workers.storing import Storing
from pipeline.stage import Stage
from tests.pipeline.graphs import node
from tests.pipeline.runner.test_local import Quiet

SAME = {"torch": "2.10.0", "Python": "3.11.9"}


class Recorder:
    """A worker that does nothing but note its orders."""

    def __init__(self, hear: Hear) -> None:
        self.hear = hear
        self.orders: list[Order] = []
        self.closed = False

    def send(self, order: Order) -> None:
        self.orders.append(order)

    def close(self) -> None:
        self.closed = True

    def builds(self) -> list[str]:
        return [order.name for order in self.orders if isinstance(order, Build)]


class Passing:
    """Transient results without a store."""

    def __init__(self, folder: Path) -> None:
        self.holdings = Holdings(folder)

    def get(self, key: str) -> HeldResult | None:
        return self.holdings.get(key)

    def adopt(self, made_by: Any, results: tuple[HeldResult, ...]) -> None:
        for result in results:
            self.holdings.adopt(result)


class Bench:
    """A pool of two workers for nodes a, b (no inputs), c and d (inputs a and b)."""

    def __init__(self, folder: Path, signatures: Mapping[str, Mapping[str, str]]) -> None:
        self.workers: dict[str, Recorder] = {}
        self.hired: list[str] = []
        self.outcomes: list[Outcome] = []
        self.watcher = Quiet()
        self.passing, self.folder = Passing(folder), folder
        nodes = [node("a"), node("b"), node("c", {"x": "a", "y": "b"}), node("d", {"y": "b"})]
        stages = {each.site: Stage(config=None) for each in nodes}
        graph = Graph.of(nodes, [], stages)
        self.plan: Plan = make_plan(graph, lambda key: False)
        self.pool = Pool(
            ("one", "two"),
            self.hire,
            signature=SAME,
            watcher=self.watcher,
            note=self.outcomes.append,
        )
        self.follow()
        for name, signature in signatures.items():
            self.workers[name].hear(Ready(signature=signature))

    def hire(self, name: str, hear: Hear) -> Recorder:
        self.hired.append(name)
        self.workers[name] = Recorder(hear)
        return self.workers[name]

    def follow(self) -> None:
        self.pool.follow(self.plan, cast(Transients, self.passing), lambda name: None)

    def key(self, name: str) -> str:
        return next(key for ref, key in self.plan.graph.keys.items() if ref.node == name)

    def held(self, name: str, size: int) -> HeldResult:
        path = self.folder / f"{name}-files"
        path.mkdir()
        (path / "x.bin").write_bytes(b"x" * size)
        return HeldResult(
            key=self.key(name),
            output="out",
            path=path,
            meta={},
            record={},
            contents={},
            files={"x.bin": size},
        )

    def outcome(self, name: str) -> Outcome:
        return Outcome(
            name=name, status="built", started=0.0, seconds=1.0, peak_rss_bytes=1, bytes=1
        )


@pytest.fixture
def bench(tmp_path: Path) -> Callable[..., Bench]:
    def made(**signatures: Mapping[str, str]) -> Bench:
        return Bench(tmp_path, signatures or {"one": SAME, "two": SAME})

    return made


def test_a_node_goes_where_most_of_its_inputs_are(bench: Callable[..., Bench]) -> None:
    at = bench()
    assert at.pool.finished() == [] and at.pool.free
    assert at.pool.start("a") and at.pool.start("b") and not at.pool.free
    one, two = at.workers["one"], at.workers["two"]
    assert (one.builds(), two.builds()) == (["a"], ["b"])
    one.hear(Computed(name="a", held=(at.held("a", 10),)))
    two.hear(Computed(name="b", held=(at.held("b", 20),)))
    assert sorted(at.pool.finished()) == ["a", "b"]
    assert at.pool.start("c")
    [order] = [o for o in two.orders if isinstance(o, Build) and o.name == "c"]
    assert order.inputs.keys() == {at.key("a"), at.key("b")}
    at.passing.holdings.drop(at.key("a"))
    two.hear(Computed(name="c"))
    at.pool.finished()
    at.pool.start("d")
    assert [o.keys for o in one.orders if isinstance(o, Forget)] == [{at.key("a")}]


def test_what_a_worker_is_storing_only_it_reads(bench: Callable[..., Bench]) -> None:
    at = bench()
    at.pool.finished()
    at.pool.start("a")
    at.pool.start("b")
    one, two = at.workers["one"], at.workers["two"]
    one.hear(Computed(name="a", storing=frozenset({at.key("a")})))
    two.hear(Computed(name="b", storing=frozenset({at.key("b")})))
    at.pool.finished()
    assert not at.pool.start("c")  # no worker reads both
    assert at.pool.start("d") and two.builds() == ["b", "d"]
    two.hear(Done(outcome=at.outcome("b")))
    at.pool.finished()
    assert at.pool.start("c") and one.builds() == ["a", "c"]
    one.hear(Done(outcome=at.outcome("a")))
    at.pool.settle()
    assert [(o.name, o.worker) for o in at.outcomes] == [("b", "two"), ("a", "one")]


def test_what_is_done_before_it_is_said_to_be_computed_is_stored() -> None:
    storing = Storing()
    storing.begun("a")
    storing.done("a")
    storing.computed("one", "a", ["k"])
    assert storing.readable("k", "two")
    storing.settle()
    storing.begun("b")
    storing.computed("one", "b", ["k"])
    assert storing.readable("k", "one") and not storing.readable("k", "two")
    storing.failed("b", StageFailed("full"))
    with pytest.raises(StageFailed, match="full"):
        storing.settle()


def test_a_worker_with_another_signature_is_refused_by_name(bench: Callable[..., Bench]) -> None:
    at = bench(one={**SAME, "torch": "2.9.1"}, two=SAME)
    at.pool.finished()
    [text] = at.watcher.messages
    assert "worker one is not used" in text and "torch is 2.9.1, not 2.10.0" in text
    assert at.pool.start("a") and at.workers["two"].builds() == ["a"]
    assert at.workers["one"].closed and not at.workers["one"].builds()
    at.follow()
    assert at.hired == ["one", "two"]  # it is not asked again


def test_without_any_worker_of_the_signature_there_is_one_error(
    bench: Callable[..., Bench],
) -> None:
    other = {**SAME, "Python": "3.12.1"}
    at = bench(one=other, two=other)
    with pytest.raises(UserError, match=r"Python is 3\.12\.1, not 3\.11\.9"):
        at.pool.finished()


def test_the_others_finish_before_a_lost_node_is_planned_again(
    bench: Callable[..., Bench],
) -> None:
    at = bench()
    at.pool.finished()
    at.pool.start("a")
    at.pool.start("b")
    at.workers["one"].hear(Ended(reason="signal 9"))
    at.workers["two"].hear(Computed(name="b", held=(at.held("b", 20),)))
    with pytest.raises(Lost, match=r"worker one ended \(signal 9\) while it built a"):
        at.pool.finished()
    assert at.passing.get(at.key("b")) is not None
    at.follow()
    assert at.hired == ["one", "two", "one"]
    assert [type(order) for order in at.workers["one"].orders] == [Follow]


@pytest.mark.parametrize("error", [Vanished("a.out"), StageFailed("a: no")])
def test_the_error_of_a_node_is_raised_as_it_is(
    bench: Callable[..., Bench], error: Exception
) -> None:
    at = bench()
    at.pool.finished()
    at.pool.start("a")
    at.workers["one"].hear(Failed(name="a", error=error))
    with pytest.raises(type(error)) as caught:
        at.pool.finished()
    assert caught.value is error
    at.pool.settle()


def test_a_result_that_cannot_be_stored_is_an_error_even_if_nobody_asks(
    bench: Callable[..., Bench],
) -> None:
    at = bench()
    at.pool.finished()
    at.pool.start("a")
    at.workers["one"].hear(Computed(name="a", storing=frozenset({at.key("a")})))
    at.workers["one"].hear(Failed(name="a", error=StageFailed("disk full"), storing=True))
    with pytest.raises(StageFailed, match="disk full"):
        at.pool.settle()
