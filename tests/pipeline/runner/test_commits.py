"""Results are stored while the next nodes run: what these read, and what becomes of failures."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline.content import Memory
from pipeline.errors import UserError
from pipeline.graph import Graph, Ref
from pipeline.key import digest
from pipeline.planning.expand import expand
from pipeline.planning.site import SitePlan
from pipeline.runner.commits import Commit, Commits
from pipeline.stage import Stage, Task
from pipeline.store import Store, StoreConfig
from pipeline.store.disk_errors import StorageTrouble
from tests.pipeline import sites as fake
from tests.pipeline.runner.chains import runner_for
from tests.pipeline.runner.test_local import site
from tests.pipeline.store.conftest import leftovers

PATIENCE = 20.0
"""Seconds after which something that never happens is a failure."""


@dataclass
class Steps:
    """What happens when a made result is written, and what happened, in order."""

    write: Callable[[str], None] = lambda text: None
    read: Callable[[Task], None] = lambda task: None
    seen: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, text: str) -> None:
        with self.lock:
            self.seen.append(text)


STEPS = Steps()


@dataclass(frozen=True)
class Text:
    """Content whose writing is a step of the test."""

    text: str
    capacity: int = 1 << 40

    @property
    def bytes(self) -> int:
        return len(self.text)

    @property
    def memories(self) -> tuple[Memory, ...]:
        return (Memory(name="cpu", capacity=self.capacity),)

    def moved(self, memory: str) -> Text:
        del memory
        return self

    def write(self, path: Path) -> None:
        STEPS.write(self.text)
        STEPS.note(f"written {self.text}")
        path.write_text(self.text)


class Make(Stage):
    """Makes a result after that of the member before; it is stored."""

    kind: ClassVar[str] = "make"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = fake.Number

    def demands(self) -> Mapping[str, tuple[str, ...]]:
        return {"before": ("passed",)}

    def run(self, task: Task) -> None:
        STEPS.note(task.node_name)
        text = f"text {task.index}"
        task.outputs["out"].put("text.txt", Text(text, self.config.value or 1 << 40))
        task.outputs["out"].write_json("length.json", len(text))
        task.outputs["out"].meta["length"] = len(text)


class Read(Stage):
    """Reads what was made of its member; nothing of it is stored."""

    kind: ClassVar[str] = "read"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = fake.Number
    outputs: ClassVar[tuple[str, ...]] = ("passed",)

    def transient(self) -> frozenset[str]:
        return frozenset({"passed"})

    def demands(self) -> Mapping[str, tuple[str, ...]]:
        return {"before": ("passed",)}

    def run(self, task: Task) -> None:
        STEPS.note(task.node_name)
        made = task.inputs["made"]
        content = made.content("text.txt")
        text = content.text if isinstance(content, Text) else made.file("text.txt").read_text()
        assert made.json("length.json") == made.meta["length"] == len(text)
        assert made.names == ("length.json", "text.txt")
        STEPS.read(task)
        task.outputs["passed"].write_json("text.json", text)


class Last(Stage):
    """Reads the files of all."""

    kind: ClassVar[str] = "last"
    version: ClassVar[int] = 1
    Config: ClassVar[type] = fake.Number

    def demands(self) -> Mapping[str, tuple[str, ...]]:
        return {"reads": ("passed",)}

    def run(self, task: Task) -> None:
        all_made = [made for name, made in task.inputs.items() if name.startswith("made")]
        texts = [made.file("text.txt").read_text() for made in all_made]
        task.outputs["out"].write_json("texts.json", sorted(texts))


@pytest.fixture(autouse=True)
def steps() -> Iterator[Steps]:
    STEPS.__init__()  # type: ignore[misc]
    yield STEPS


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(StoreConfig(dir=str(tmp_path / "store")))


def graph_of(store: Store, count: int, capacity: int = 0) -> Graph:
    """make[k] reads what read[k-1] passed on, read[k] what make[k] made."""
    made = [
        site(fake.Source(fake.Number(value=1))),
        site(fake.Lister(fake.Count(count=count)), {"source": "source"}),
        site(Make(fake.Number(value=capacity)), {"before": "read@previous"}, each="lister"),
        site(Read(fake.Number()), {"made": "make", "before": "read@previous"}, each="lister"),
        site(Last(fake.Number()), {"made": "make", "reads": "read"}, final=True),
    ]
    sites: dict[str, SitePlan] = {plan.name: plan for plan in made}
    return expand(sites, mode="run", find=store.get, build=runner_for(store).result).graph


def texts(store: Store, graph: Graph) -> list[str]:
    artifact = store.get(graph.keys[Ref(node="last", output="out")])
    assert artifact is not None
    found: list[str] = artifact.json("texts.json")
    return found


def made(store: Store) -> set[str]:
    return {entry.node for entry in store.entries() if entry.kind == "make"}


def test_a_result_is_read_while_it_is_still_being_stored(store: Store, steps: Steps) -> None:
    read = threading.Event()

    def write(text: str) -> None:
        if text == "text 0":
            assert read.wait(PATIENCE), "nothing read it before it was stored"

    steps.write, steps.read = write, lambda task: read.set()
    graph = graph_of(store, 2)
    runner = runner_for(store)
    runner.run(graph)
    assert texts(store, graph) == ["text 0", "text 1"]
    assert steps.seen.index("read[0]") < steps.seen.index("written text 0")
    outcome = runner.outcomes["make[0]"]
    assert outcome.stored is not None
    assert outcome.stored[0] + outcome.stored[1] > runner.outcomes["read[0]"].started
    assert outcome.bytes == len("text 0") + len("6\n")
    assert leftovers(store) == []


def test_a_member_is_in_the_store_before_the_next_of_its_site_begins(
    store: Store, steps: Steps
) -> None:
    runner_for(store).run(graph_of(store, 4))
    for k in range(3):
        assert steps.seen.index(f"written text {k}") < steps.seen.index(f"make[{k + 1}]")


def test_a_commit_that_fails_stops_the_run_with_its_own_error(store: Store, steps: Steps) -> None:
    read = threading.Event()

    def write(text: str) -> None:
        if text == "text 1":
            assert read.wait(PATIENCE)
            raise OSError(errno.ENOSPC, "No space left on device")

    def reads(task: Task) -> None:
        if task.index == 1:
            read.set()

    steps.write, steps.read = write, reads
    runner = runner_for(store)
    with pytest.raises(StorageTrouble, match="no space left on the disk of the store"):
        runner.run(graph_of(store, 4))
    assert made(store) == {"make[0]"} and "make[2]" not in steps.seen
    assert "make[1]" not in runner.outcomes and "make[0]" in runner.outcomes
    assert leftovers(store) == []
    steps.write, steps.seen = Steps().write, []
    graph = graph_of(store, 4)
    runner_for(store).run(graph)
    assert len(texts(store, graph)) == 4
    assert [name for name in steps.seen if name.startswith("make")] == [
        f"make[{k}]" for k in (1, 2, 3)
    ]


def test_a_reader_that_needs_the_file_fails_with_the_error_of_the_commit(
    store: Store, steps: Steps
) -> None:
    def write(text: str) -> None:
        raise OSError(errno.ENOSPC, text)

    def reads(task: Task) -> None:
        task.inputs["made"].file("text.txt")

    steps.write, steps.read = write, reads
    with pytest.raises(StorageTrouble, match="no space left on the disk of the store"):
        runner_for(store).run(graph_of(store, 1))


def test_what_is_being_stored_is_kept_when_a_later_node_fails(store: Store, steps: Steps) -> None:
    failing = threading.Event()

    def write(text: str) -> None:
        del text
        assert failing.wait(PATIENCE)

    def reads(task: Task) -> None:
        failing.set()
        raise UserError(f"{task.node_name} cannot")

    steps.write, steps.read = write, reads
    with pytest.raises(UserError, match=r"read\[0\]: read\[0\] cannot"):
        runner_for(store).run(graph_of(store, 2))
    assert made(store) == {"make[0]"} and leftovers(store) == []


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_between_solving_and_storing_one_result_is_lost_at_most(
    tmp_path: Path, when: str
) -> None:
    child = multiprocessing.get_context("fork").Process(target=killed, args=(str(tmp_path), when))
    child.start()
    child.join(60)
    assert child.exitcode == -signal.SIGKILL
    store = Store(StoreConfig(dir=str(tmp_path)))
    assert made(store) == ({"make[0]"} if when == "before" else {"make[0]", "make[1]"})
    assert all(store.check(key) for key in store.layout.keys())
    STEPS.__init__()  # type: ignore[misc]
    graph = graph_of(store, 3)
    runner_for(store).run(graph)
    assert texts(store, graph) == ["text 0", "text 1", "text 2"]
    again = [name for name in STEPS.seen if name.startswith("make")]
    assert again == (["make[1]", "make[2]"] if when == "before" else ["make[2]"])
    assert leftovers(store) == []


def killed(root: str, when: str) -> None:
    """Die while the result of make[1] is written, or when make[2] begins."""

    def write(text: str) -> None:
        if text == ("text 1" if when == "before" else "text 2"):
            os.kill(os.getpid(), signal.SIGKILL)

    STEPS.write = write
    store = Store(StoreConfig(dir=root))
    runner_for(store).run(graph_of(store, 3))


def test_beyond_its_share_of_the_memory_content_is_written_at_once(
    store: Store, steps: Steps
) -> None:
    graph = graph_of(store, 1, capacity=16 * 5)  # a sixteenth of it is less than the six bytes
    runner_for(store).run(graph)
    assert steps.seen.index("written text 0") < steps.seen.index("read[0]")
    assert texts(store, graph) == ["text 0"]


@contextmanager
def opened(commits: Commits, store: Store, name: str) -> Iterator[tuple[ExitStack, list[object]]]:
    """Drafts with a text in them."""
    with ExitStack() as stack:
        wanted = {"out": (digest(name), {"node": name})}
        drafts = commits.drafts(stack.enter_context(store.drafts(wanted)), stack)
        drafts["out"].put("text.txt", Text(name))
        yield stack, list(drafts.values())


def test_no_more_than_two_wait_to_be_stored(store: Store, steps: Steps) -> None:
    go, third = threading.Event(), threading.Event()

    def write(text: str) -> None:
        del text
        assert go.wait(PATIENCE)

    steps.write = write
    commits, stored = Commits(store.get, at_once=1), list[str]()

    def note(commit: Commit) -> None:
        stored.append(commit.node)

    def add(name: str) -> None:
        with opened(commits, store, name) as (stack, drafts):
            commits.add(name, "make", drafts, stack.pop_all(), note)  # type: ignore[arg-type]

    def add_third() -> None:
        add("c")
        third.set()

    add("a"), add("b")
    assert commits.budget.used == {"cpu": 2}
    worker = threading.Thread(target=add_third)
    worker.start()
    assert not third.wait(0.2)
    go.set()
    assert third.wait(PATIENCE)
    worker.join()
    commits.settle()
    assert stored == ["a", "b", "c"] and commits.budget.used == {"cpu": 0}
    assert commits.budget.peak <= 3 and commits.waited > 0
    assert commits.get(digest("a")) is None and store.has(digest("a"))
    commits.close()
