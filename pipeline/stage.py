"""The stage protocol: a class with a kind, a version, a config schema, and work to run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

from pipeline.content import Content
from pipeline.errors import StageFailed, UserError
from pipeline.key import Json, canonical

T = TypeVar("T")


class Artifact(Protocol):
    """An immutable result: a folder of files in the store, or held in memory during a run."""

    @property
    def key(self) -> str: ...

    @property
    def path(self) -> Path: ...

    @property
    def meta(self) -> Mapping[str, Any]:
        """What the stage said about the result: plain JSON, kept in the manifest."""
        ...

    @property
    def names(self) -> tuple[str, ...]:
        """Names of its files, sorted."""
        ...

    def content(self, name: str) -> Content | None:
        """What was put under this name, if it is in memory; None: read `file`."""
        ...

    def file(self, name: str) -> Path:
        """The path of one of its files; raises UserError if it has no such file.

        One that is only in memory is written for it: ask for `content` first where it is large.
        """
        ...

    def json(self, name: str) -> Any:
        """The parsed content of one of its JSON files."""
        ...


class Draft(Protocol):
    """A result being built: files go under `path`, plain JSON into `meta`."""

    @property
    def path(self) -> Path: ...

    @property
    def meta(self) -> dict[str, Any]: ...

    def write_json(self, name: str, value: Json) -> None: ...

    def put(self, name: str, content: Content) -> None:
        """Add a file by its content, which must not change afterwards.

        Of a transient result it stays in memory while the budget allows (`Stage.held_memory`).
        """
        ...

    def write_last(self, name: str, text_of: Callable[[Mapping[str, str]], str]) -> None:
        """Have a text file written from the sha256 (hex) of all other files, by their names.

        Only a result that is stored has it: nothing hashes one that is dropped after the run.
        """
        ...


class Site(Protocol):
    """What a stage sees while the graph is expanded, before anything runs."""

    @property
    def name(self) -> str: ...

    @property
    def mode(self) -> str:
        """`run`: inputs may be built to look at them; `plan`: nothing is built or fetched."""
        ...

    @property
    def facts(self) -> Mapping[str, Any]:
        """Input name -> `Survey.facts` of the stage that makes it."""
        ...

    def prepare(self) -> None:
        """Mode run: import what nodes will need. For another thread, while files are being read."""
        ...

    def artifact(self, name: str) -> Artifact | None:
        """An input's result. Mode run: built now if the store lacks it. Mode plan: None then."""
        ...

    def own(self, stage: Stage | None = None) -> Artifact | None:
        """This site's own result, if the store has it (single-node sites only).

        The node's key needs a stage, and the survey is not done yet: `stage` is what the survey
        has settled so far, where that decides the key; None: the stage being surveyed.
        """
        ...

    def result(self, stage: Stage | None = None) -> Artifact | None:
        """This site's own result. Mode run: built now if the store lacks it. Mode plan: `own`."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """What a node is expected to cost: bytes of its results, peak bytes of memory, seconds.

    `outputs` splits the bytes by output, for those that may be transient. `memory` has no inputs
    in it that are held in memory, nor what is put into drafts bit by bit. `device_memory` is the
    peak of what tensors take on a GPU, 0 for a node that uses none; `remedy` is the setting with
    which it would fit, where it does not.

    `work` is by kind how much of it there is (products, bytes, ...), which the speeds of a machine
    turn into seconds there (:mod:`pipeline.scheduling.machine`); empty: only `seconds` is known.
    `reads` are the bytes that it reads from files which no node has made.
    """

    bytes: int = 0
    memory: int = 0
    seconds: float = 0.0
    outputs: Mapping[str, int] = field(default_factory=dict)
    device_memory: int = 0
    remedy: str = ""
    work: Mapping[str, float] = field(default_factory=dict)
    reads: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Parts:
    """How the nodes of a site are built in parts, each by a node of its own, and joined.

    `names` is by member what its parts are called, two or more; a member without is built whole. A
    name is all that tells one part from another: it is in the part's key, and `Task.part`. A part
    has the inputs and outputs of the site and its stage. The node that joins them reads them as
    `parts/0`, `parts/1`, ..., and beside them `joining`, the inputs of the site that it needs
    itself. `semantics` (what of the config can change a part's bytes, in the place of
    `Stage.semantics`) and `estimates` are by member and part; what joining costs stands in the
    survey's estimates.
    """

    names: Mapping[str | None, tuple[str, ...]]
    joining: frozenset[str]
    semantics: Mapping[tuple[str | None, str], Json] = field(default_factory=dict)
    estimates: Mapping[tuple[str | None, str], Estimate] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Survey:
    """What a stage says about its nodes before running them.

    `members` names the subgraphs that other sites may be expanded over (`each:`); `facts` is any
    value that stages fed by this one understand; `problems` are mistakes in the config, all of
    them; `notes` are what a plan should say and a run need not; `estimates` are by member (None:
    the site's single node). `settled` is the stage with what was found: it is asked from then on
    (`semantics`, `demands`, `work`, `beside`) and runs; None: the stage as it was. `parts`: some of
    its nodes are built in parts.
    """

    members: tuple[str, ...] = ()
    facts: Any = None
    problems: tuple[UserError, ...] = ()
    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    estimates: Mapping[str | None, Estimate] = field(default_factory=dict)
    settled: Stage | None = None
    parts: Parts | None = None


def _unwatched(paths: Iterable[Path]) -> None:
    del paths


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """One node being run: its inputs, the outputs that are wanted, and the framework's services.

    `inputs` maps input names to artifacts: `source` for the default output `out`, and
    `statistics.gram` for a named one; a single-node site fed by an expanded site gets
    `parts/0.weights`, `parts/1.weights`, ... `outputs` holds drafts of the wanted outputs only.
    `part` is the one that is built, where the node is built in parts (`Parts`).
    """

    node_name: str
    member: str | None
    index: int | None
    inputs: Mapping[str, Artifact]
    outputs: Mapping[str, Draft]
    scratch: Path
    progress: Callable[[float, str], None]
    warn: Callable[[str], None]
    resource: Callable[[str, Callable[[], Any]], Any]
    """`resource(name, make)`: a per-worker cache for what is slow to make and never in a result."""
    reads: Callable[[Iterable[Path]], None] = _unwatched
    """`reads(paths)`: says, before they are read, which files outside the store the node reads by
    their paths. If one has changed when the node is done, its results are not stored."""
    part: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Upcoming:
    """A node that will run soon: its member, and those of its inputs that are there already.

    `resource` is as in `Task`, for the thread that reads ahead.
    """

    member: str | None
    index: int | None
    inputs: Mapping[str, Artifact]
    resource: Callable[[str, Callable[[], Any]], Any]


@dataclass(frozen=True, eq=False)
class Stage:
    """Base of all stages. A subclass sets `kind`, `version`, `Config`, and names `work`.

    A stage that is all done in a few lines writes `run` in place of naming `work`. Stages are
    immutable: one that learns something in its survey is a frozen dataclass with a field for it,
    None before, and gives `Survey.settled`.
    """

    config: Any

    kind: ClassVar[str]
    version: ClassVar[int]
    Config: ClassVar[type]

    @property
    def libraries(self) -> tuple[str, ...]:
        """Installed distributions whose version can change the bytes of a result: in the key."""
        return ()

    ahead: ClassVar[str] = ""
    """A module that `work` imports, with `read_ahead(upcoming)`: it asks the system to read from
    disk what a node will, and gives its bytes. Called while the node of the member before runs."""

    sends: ClassVar[bool] = False
    """Whether it hands a finished result on to others: it runs once all else is done and the run
    folder has what it publishes, so that a failure of theirs keeps nothing back."""

    in_driver: ClassVar[bool] = False
    """Whether its nodes run where the command was given, never in another process: they need what
    only that has, such as an access key of the environment."""

    speeds: ClassVar[str] = ""
    """A module with `speeds(device, threads)`: kind of work -> how much of it a second this machine
    does, measured. `mode=measure` asks for it."""

    lighter: ClassVar[str] = ""
    """What to change in the config where its nodes run out of memory: `lower calibrate.memory`."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the results of a node, each stored and wanted by itself."""
        return ("out",)

    @property
    def work(self) -> tuple[str, ...]:
        """The heavy half: modules with `run(config, task)`, the first of which is imported ahead.

        A `run` that cannot do the task returns False, and the next module's does all of it. A
        module may have `warm_up(config)`, called once it is imported ahead.
        """
        return ()

    @property
    def also_imports(self) -> tuple[str, ...]:
        """What else is imported ahead: large modules that `work` or `run` imports when it runs."""
        return ()

    @property
    def modules(self) -> tuple[str, ...]:
        """All that is imported ahead.

        Nodes of a stage that names any may run while others' modules are being imported.
        """
        return (*self.work[:1], *self.also_imports)

    @property
    def beside(self) -> int:
        """How many of its nodes it does well to build at a time."""
        return 1

    def demands(self) -> Mapping[str, tuple[str, ...]]:
        """Input name -> which outputs of its node are needed; `("out",)` where not named."""
        return {}

    def consults(self) -> frozenset[str]:
        """Inputs of which only `Survey.facts` count: their results are no input of the nodes."""
        return frozenset()

    def transient(self) -> frozenset[str]:
        """Outputs that are dropped once every node that reads them is done.

        They are held in memory, or on disk for the duration of the run, and reach the store as a
        durable copy now and then: `pipeline.runner.copies`.
        """
        return frozenset()

    @property
    def held_memory(self) -> int | None:
        """Bytes of transient results in each memory beyond which its own go to the disk.

        None: a quarter of that memory, if nodes do with the rest. Never part of a key: where a
        result lies changes no bytes.
        """
        return None

    def survey(self, site: Site) -> Survey:
        """Say what is known before running: members, facts, problems, estimates."""
        del site
        return Survey()

    def semantics(self, member: str | None) -> Json:
        """What of the config can change the bytes of the node for `member`: part of its key."""
        del member
        return canonical(self.config)

    def run(self, task: Task) -> None:
        """Write every draft in `task.outputs`; raise StageFailed with the reason if impossible."""
        for name in self.work:
            if import_module(name).run(self.config, task) is not False:
                return
        raise StageFailed(f"nothing that the stage {self.kind!r} names as its work does this task")
