"""While a member's node runs, the files of the next one are read; trouble there changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.errors import UserError
from pipeline.graph import Graph
from pipeline.planning.expand import expand
from pipeline.stage import Task, Upcoming
from pipeline.store import Store, StoreConfig
from tests.pipeline import sites as fake
from tests.pipeline.runner.chains import runner_for
from tests.pipeline.runner.test_local import site

PATIENCE = 20.0
ASKED: dict[int, threading.Event] = {}
SEEN: list[tuple[str | None, tuple[str, ...]]] = []


def read_ahead(upcoming: Upcoming) -> int:
    """What the framework calls, here as in the work of a stage."""
    made = upcoming.resource("once", object)
    assert upcoming.resource("once", object) is made
    SEEN.append((upcoming.member, tuple(sorted(upcoming.inputs))))
    assert upcoming.index is not None
    ASKED.setdefault(upcoming.index, threading.Event()).set()
    if upcoming.index == 3:
        raise UserError("the file is gone")
    return 10


class Eager(fake.Step):
    """A step that is not done before the next one's files are asked for."""

    ahead: ClassVar[str] = __name__

    def run(self, task: Task) -> None:
        assert task.index is not None
        if task.index < 3:
            asked = ASKED.setdefault(task.index + 1, threading.Event())
            assert asked.wait(PATIENCE), "nothing was read ahead"
        super().run(task)


@pytest.fixture(autouse=True)
def fresh() -> Iterator[None]:
    ASKED.clear()
    SEEN.clear()
    yield


def graph_of(store: Store) -> Graph:
    made = [
        site(fake.Source(fake.Number(value=5))),
        site(fake.Lister(fake.Count(count=4)), {"source": "source"}),
        site(
            Eager(fake.Number(value=1)),
            {"source": "source", "before": "step@previous"},
            each="lister",
        ),
        site(fake.Total(fake.Number()), {"steps": "step"}, final=True),
    ]
    sites = {plan.name: plan for plan in made}
    return expand(sites, mode="run", find=store.get, build=runner_for(store).result).graph


def test_the_next_member_is_read_while_one_runs(tmp_path: Path) -> None:
    store = Store(StoreConfig(dir=str(tmp_path)))
    runner = runner_for(store)
    runner.run(graph_of(store))
    # each once, with what is in the store already; the last one's trouble is left to its run
    assert SEEN == [(f"layer.{k}", ("source",)) for k in (1, 2, 3)]
    assert runner.beside["read_ahead_bytes"] == 20


def test_nothing_is_read_for_what_is_stored(tmp_path: Path) -> None:
    store = Store(StoreConfig(dir=str(tmp_path)))
    runner_for(store).run(graph_of(store))
    SEEN.clear()
    runner_for(store).run(graph_of(store))
    assert SEEN == []
