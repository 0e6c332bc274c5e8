"""Transient results of a run, held in memory within a budget, else in files for its duration.

They are neither hashed nor synced, and are gone when the process ends, however it does.
"""

from __future__ import annotations

import json
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline.content import Content
from pipeline.errors import StageFailed, UserError
from pipeline.store import StoredDraft
from pipeline.store.artifact import inside
from pipeline.store.disk import remove
from pipeline.store.draft import files_of
from pipeline.store.publish import link

SHARE = 4
"""A stage that names no bound may fill this part of a memory: a quarter, used or not."""

STORING = 16
"""Results that are being stored may take this part of a memory, beside what is held."""


def room(capacity: int, limit: int | None, reserved: int, share: int = SHARE) -> int:
    """Bytes that may be held in a memory: `limit`, or a share of it that leaves `reserved` free."""
    return limit if limit is not None else max(0, min(capacity // share, capacity - reserved))


def storing_room(capacity: int, reserved: int) -> int:
    """Bytes of a memory for results being stored: what nodes and held results leave, if any."""
    return room(capacity, None, reserved + capacity // SHARE, STORING)


@dataclass(slots=True)
class Budget:
    """Bytes of held content by memory. `peak` is the most that there were in all at a time.

    `reserved` is what nodes need for themselves, by kind of memory: `cpu`, `cuda`. `sharers`
    processes share the host's memory.
    """

    used: dict[str, int] = field(default_factory=dict)
    reserved: Mapping[str, int] = field(default_factory=dict)
    sharers: int = 1
    peak: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def keep(self, content: Content, limit: int | None) -> Content | None:
        """The content in the first memory with room for it; None: in none of them."""
        for memory in content.memories:
            reserved = self.reserved.get(memory.name.partition(":")[0], 0)
            most = self.most(memory.capacity, limit, reserved)
            most //= self.sharers if memory.name == "cpu" else 1
            with self._lock:
                used = self.used.get(memory.name, 0) + content.bytes
                if used > most:
                    continue
                self.used[memory.name] = used
                self.peak = max(self.peak, sum(self.used.values()))
            return content.moved(memory.name)
        return None

    def most(self, capacity: int, limit: int | None, reserved: int) -> int:
        return room(capacity, limit, reserved)

    def add(self, content: Content) -> None:
        """Count content that is held wherever there is room or not."""
        with self._lock:
            name = content.memories[0].name
            self.used[name] = self.used.get(name, 0) + content.bytes
            self.peak = max(self.peak, sum(self.used.values()))

    def free(self, content: Content) -> None:
        """Give back the bytes of content that `keep` returned."""
        with self._lock:
            self.used[content.memories[0].name] -= content.bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldDraft(StoredDraft):
    """A draft whose contents stay in memory while `budget` allows; other files go under `path`."""

    budget: Budget
    limit: int | None
    contents: dict[str, Content] = field(default_factory=dict)

    def put(self, name: str, content: Content) -> None:
        if not inside(name):
            raise ValueError(f"{name!r} is not a name for a file of a result")
        kept = self.budget.keep(content, self.limit)
        if kept is None:
            content.write(self.place(name))
        else:
            self.contents[name] = kept

    def write_last(self, name: str, text_of: Callable[[Mapping[str, str]], str]) -> None:
        del text_of
        raise StageFailed(f"{name} of {self.label} lists hashes, which a transient result lacks")

    def release(self) -> None:
        """Give back what its contents took of the budget."""
        for content in self.contents.values():
            self.budget.free(content)
        self.contents.clear()

    def result(self) -> HeldResult:
        """What readers see. Raises StageFailed if the meta could not be stored."""
        try:
            meta = json.loads(json.dumps(self.meta, allow_nan=False))
        except (ValueError, TypeError) as error:
            text = f"what {self.label} says about itself is not JSON: {error}"
            raise StageFailed(text) from error
        files = {name: (self.path / name).stat().st_size for name in files_of(self)}
        return HeldResult(
            key=self.key,
            output=self.output,
            path=self.path,
            meta=meta,
            record=dict(self.record),
            contents=dict(self.contents),
            files=files,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldResult:
    """An immutable result (`pipeline.stage.Artifact`) that no other process sees."""

    key: str
    output: str
    path: Path
    meta: Mapping[str, Any]
    record: Mapping[str, Any]
    contents: Mapping[str, Content]
    files: Mapping[str, int]
    """Those under `path`, with their sizes in bytes."""

    @property
    def bytes(self) -> int:
        return self.in_memory + sum(self.files.values())

    @property
    def in_memory(self) -> int:
        return sum(content.bytes for content in self.contents.values())

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted({*self.contents, *self.files}))

    def content(self, name: str) -> Content | None:
        return self.contents.get(name)

    def file(self, name: str) -> Path:
        """The path of a file. One in memory is written to the disk of the run."""
        path = self.path / name
        if name in self.contents:
            if not path.exists():
                draft = self.path.with_name(f"{self.path.name}.{uuid.uuid4().hex}")
                self.contents[name].write(draft)
                path.parent.mkdir(parents=True, exist_ok=True)
                draft.replace(path)
        elif name not in self.files:
            raise UserError(
                f"the result {self.key[:12]} of {self.record.get('node', '?')} has no file "
                f"{name!r}; it has {', '.join(self.names) or 'none'}",
                remedy="the stage that made it and the one that reads it disagree",
            )
        return path

    def json(self, name: str) -> Any:
        return json.loads(self.file(name).read_text(encoding="utf-8"))

    def copy_to(self, draft: StoredDraft, stop: Callable[[], bool]) -> bool:
        """Fill a draft of the store with the same files; False if `stop` said so on the way."""
        draft.meta.update(self.meta)
        for name in self.names:
            if stop():
                return False
            if name in self.contents:
                draft.put(name, self.contents[name])
            else:
                share(self.path / name, draft.place(name))
        return True


def share(source: Path, target: Path) -> None:
    """Give a file, which must not change any more, a second name; a copy where that cannot be."""
    source.chmod(0o444)
    if not link(source, target):
        shutil.copyfile(source, target)


def in_files(held: HeldResult) -> HeldResult:
    """The same result as another process reads it: all of it in files."""
    files = {name: held.file(name).stat().st_size for name in held.names}
    return replace(held, contents={}, files=files)


class Holdings:
    """The held results of a run, by key. Safe to use from several threads.

    `scratch` is a folder that ends with the run.
    """

    def __init__(self, scratch: Path, *, sharers: int = 1) -> None:
        self.budget = Budget(sharers=sharers)
        self.scratch = scratch
        self._results: dict[str, HeldResult] = {}
        self._copied: dict[str, int] = {}
        self._dropped: set[str] = set()
        self._lock = threading.Lock()

    def get(self, key: str) -> HeldResult | None:
        with self._lock:
            return None if key in self._dropped else self._results.get(key)

    def keys(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self._results) - self._dropped

    @contextmanager
    def drafts(
        self, wanted: Mapping[str, tuple[str, Mapping[str, Any]]], limit: int | None
    ) -> Iterator[dict[str, HeldDraft]]:
        """Drafts by output, from output name -> (key, identity); held when the block ends well.

        `limit` bounds the bytes in each memory, those of earlier results included.
        """
        made = {output: self._draft(output, *what, limit) for output, what in wanted.items()}
        try:
            yield made
            results = [draft.result() for draft in made.values()]
        except BaseException:
            for draft in made.values():
                self._forget(draft.path, draft.contents)
            raise
        with self._lock:
            for result in results:
                if self._results.setdefault(result.key, result) is not result:
                    self._forget(result.path, result.contents)  # the same bytes are there already
                self._dropped.discard(result.key)

    def drop(self, key: str) -> None:
        """Let a result go: now, or when nothing copies it any more."""
        with self._lock:
            if key not in self._results:
                return
            if self._copied.get(key):
                self._dropped.add(key)
                return
            result = self._results.pop(key)
        self._forget(result.path, result.contents)

    def adopt(self, result: HeldResult) -> None:
        """Hold a result of another process: in files below `scratch`, or in another memory."""
        for content in result.contents.values():
            self.budget.add(content)
        with self._lock:
            known = self._results.setdefault(result.key, result)
            self._dropped.discard(result.key)
        if known is not result:
            self._forget(result.path, result.contents)  # the same bytes are there already

    def give_away(self, key: str) -> None:
        """Let a result go whose files somebody else has adopted: only its memory is given back."""
        with self._lock:
            result = self._results.pop(key, None)
        for content in result.contents.values() if result is not None else ():
            self.budget.free(content)

    @contextmanager
    def pinned(self, key: str) -> Iterator[HeldResult | None]:
        """Context in which a result stays; None if there is none."""
        with self._lock:
            result = self._results.get(key)
            if result is not None:
                self._copied[key] = self._copied.get(key, 0) + 1
        try:
            yield result
        finally:
            if result is not None:
                with self._lock:
                    self._copied[key] -= 1
                    gone = not self._copied[key] and key in self._dropped
                    self._dropped -= {key} if gone else set()
                if gone:
                    self.drop(key)

    def _draft(
        self, output: str, key: str, identity: Mapping[str, Any], limit: int | None
    ) -> HeldDraft:
        path = self.scratch / f"{key}.{uuid.uuid4().hex[:8]}"
        path.mkdir()
        record = dict(identity)
        return HeldDraft(
            key=key, output=output, path=path, record=record, budget=self.budget, limit=limit
        )

    def _forget(self, path: Path, contents: Mapping[str, Content]) -> None:
        for content in contents.values():
            self.budget.free(content)
        remove(path)
