"""Background commits: results on their way into the store while the next nodes run.

A stage that is done leaves drafts that are yet to be written, hashed and synced to the disk. A
thread beside the nodes does that; until it has, those that read a result get it from memory where
it was put (`pipeline.stage.Draft.put`), and wait where they ask for its files.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.content import Content
from pipeline.errors import UserError
from pipeline.machine.out_of_memory import exhausted, too_little
from pipeline.runner.held import Budget, HeldDraft, storing_room
from pipeline.store import StoredArtifact, StoredDraft


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingResult:
    """A finished result (`pipeline.stage.Artifact`) that is being stored; `stored` waits for it."""

    key: str
    folder: Path
    meta: Mapping[str, Any]
    record: Mapping[str, Any]
    contents: Mapping[str, Content]
    names: tuple[str, ...]
    stored: Callable[[], StoredArtifact]

    @property
    def path(self) -> Path:
        return self.stored().path

    @property
    def bytes(self) -> int:
        return self.stored().bytes

    def content(self, name: str) -> Content | None:
        return self.contents.get(name)

    def file(self, name: str) -> Path:
        """The path of a file in the store, once all of the result is there."""
        return self.stored().file(name)

    def json(self, name: str) -> Any:
        try:
            text = (self.folder / name).read_text(encoding="utf-8")
        except OSError:  # no such file, or it was moved into the store a moment ago
            return self.stored().json(name)
        return json.loads(text)


@dataclass(frozen=True, kw_only=True, slots=True)
class PendingDraft(HeldDraft):
    """A draft of the store whose contents stay in memory, as the budget allows, until it ends."""

    origin: StoredDraft

    def write_last(self, name: str, text_of: Callable[[Mapping[str, str]], str]) -> None:
        self.origin.write_last(name, text_of)

    def flushed(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the contents into the draft of the store, unless the node has failed."""
        if kind is None:
            for name, content in self.contents.items():
                self.origin.put(name, content)


@dataclass(kw_only=True, slots=True)
class Commit:
    """One node's results being stored. `ended` is seconds since the epoch; 0: not yet."""

    node: str
    site: str
    results: Mapping[str, PendingResult] = field(default_factory=dict)
    started: float = 0.0
    ended: float = 0.0
    future: Future[None] = field(default_factory=Future)

    @property
    def failure(self) -> BaseException | None:
        return self.future.exception() if self.future.done() else None


class _Storing(Budget):
    """The budget of results that are being stored."""

    def most(self, capacity: int, limit: int | None, reserved: int) -> int:
        del limit
        return storing_room(capacity, reserved)


class Commits:
    """The commits of a run, `at_once` side by side. Safe to use from several threads.

    At most one more than that waits for its turn. Contents that are not stored yet are in memory as
    far as `pipeline.runner.held.storing_room` allows.
    """

    def __init__(
        self,
        find: Callable[[str], StoredArtifact | None],
        *,
        at_once: int,
        failed: Callable[[str, BaseException], None] | None = None,
    ) -> None:
        self.budget = _Storing()
        self.waited = 0.0
        """Seconds that nodes have waited for commits."""
        self._find = find
        self._failed = failed
        self._most = at_once + 1
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix="commits")
        self._begun: list[Commit] = []
        self._lock = threading.Lock()

    def drafts(
        self, drafts: Mapping[str, StoredDraft], opened: ExitStack
    ) -> dict[str, PendingDraft]:
        """The same drafts; contents stay in memory, within the budget, until `opened` ends."""
        return {output: self._draft(draft, opened) for output, draft in drafts.items()}

    def _draft(self, draft: StoredDraft, opened: ExitStack) -> PendingDraft:
        held = PendingDraft(
            key=draft.key,
            output=draft.output,
            path=draft.path,
            meta=draft.meta,
            record=draft.record,
            budget=self.budget,
            limit=None,
            origin=draft,
        )
        opened.callback(held.release)
        opened.push(held.flushed)
        return held

    def get(self, key: str) -> PendingResult | None:
        """A result that is being stored."""
        with self._lock:
            return next((c.results[key] for c in self._under_way() if key in c.results), None)

    def add(
        self,
        node: str,
        site: str,
        drafts: Iterable[PendingDraft],
        opened: ExitStack,
        done: Callable[[Commit], None],
    ) -> None:
        """Store finished drafts in the background, then close what is `opened`: it commits them.

        Waits while too many are under way. `done` is called in the background when they are in the
        store. Raises what made an earlier commit fail, and closes `opened` with it.
        """
        commit = Commit(node=node, site=site)
        with opened:
            commit.results = {draft.key: self._result(draft, commit) for draft in drafts}
            self._wait(self._too_many)
            rest = opened.pop_all()
        with self._lock:
            self._begun.append(commit)
            commit.future = self._pool.submit(self._attempt, commit, rest, done)

    def follow(self, site: str, ancestors: Callable[[], frozenset[str]]) -> None:
        """Wait for earlier nodes of the same site that a node follows from; raise their failure.

        So a run that is killed in a chain of members has lost one member's result at most.
        `ancestors` is asked only where any are under way.
        """
        with self._lock:
            mine = {commit.node for commit in self._under_way() if commit.site == site}
        before = mine & ancestors() if mine else frozenset[str]()
        self._wait(lambda: [commit for commit in self._under_way() if commit.node in before])

    def settle(self) -> None:
        """Wait until all are in the store. Raises what made the first that failed fail."""
        self._wait(self._under_way)

    def check(self) -> None:
        """Raise what made the first commit that failed fail, if one has."""
        for commit in self._begun:
            if (failure := commit.failure) is not None:
                raise failure

    def close(self) -> None:
        """Wait for all, whatever becomes of them."""
        self._pool.shutdown()

    def _too_many(self) -> list[Commit]:
        under_way = self._under_way()
        return under_way if len(under_way) >= self._most else []

    def _under_way(self) -> list[Commit]:
        self._begun = [c for c in self._begun if not c.future.done() or c.failure is not None]
        return [commit for commit in self._begun if not commit.future.done()]

    def _wait(self, busy: Callable[[], list[Commit]]) -> None:
        """Wait until none is left that `busy` gives, the lock held, or one has failed."""
        began = time.monotonic()
        while True:
            with self._lock:
                self.check()
                futures = [commit.future for commit in busy()]
            if not futures:
                break
            wait(futures, return_when=FIRST_COMPLETED)
        self.waited += time.monotonic() - began

    def _result(self, draft: PendingDraft, commit: Commit) -> PendingResult:
        held = draft.result()
        return PendingResult(
            key=held.key,
            folder=held.path,
            meta=held.meta,
            record=held.record,
            contents=held.contents,
            names=tuple(sorted({*held.names, *draft.origin.last})),
            stored=lambda: self._stored(commit, held.key),
        )

    def _stored(self, commit: Commit, key: str) -> StoredArtifact:
        commit.future.result()
        artifact = self._find(key)
        if artifact is None:
            raise UserError(
                f"the result {key[:12]} of {commit.node} is gone from the store",
                remedy="is something else deleting files there?",
            )
        return artifact

    def _attempt(self, commit: Commit, opened: ExitStack, done: Callable[[Commit], None]) -> None:
        """Store, and say at once what went wrong to whoever wants to know."""
        try:
            self._store(commit, opened, done)
        except BaseException as error:
            if self._failed is not None:
                self._failed(commit.node, error)
            raise

    def _store(self, commit: Commit, opened: ExitStack, done: Callable[[Commit], None]) -> None:
        commit.started = time.time()
        try:
            opened.close()
        except (MemoryError, RuntimeError) as error:
            if (whose := exhausted(error)) is None:
                raise
            raise too_little(commit.node, whose, "", error) from None
        commit.ended = time.time()
        done(commit)
