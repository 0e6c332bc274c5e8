"""Schema of the typed parts of a config: numerics, store, runner, graph, reports, trackers."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from pipeline.errors import UserError
from pipeline.report.section import example
from pipeline.scheduling.machine import MachineConfig
from pipeline.store import StoreConfig

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
EXAMINING = ("verify", "inspect", "diff")
"""The modes that look at `checkpoint`."""
RUN_FILES = ("config.yaml", "run.log", "plan.json", "result.json", "report.html")


@dataclass(frozen=True, kw_only=True, slots=True)
class NumericsConfig:
    """What decides the order of floating-point sums: the device and the threads of an operation."""

    device: str
    """cpu, cuda or cuda:1, as `device` of the config was resolved."""
    threads: int
    """Threads of one operation; part of the result, since it decides the order of sums."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunnerConfig:
    """Who runs the nodes: `workers` nodes at a time, each with `threads` threads."""

    kind: str = "local"
    """Who builds the nodes: local (this machine), or ray (a cluster)."""
    workers: int | None = None
    """Nodes at a time; null: as many as the stages say, or as there is room for in a cluster."""
    threads: int | None = None
    devices: list[str] | None = None
    """A process for each of these devices: [cuda:0, cuda:1], or [cpu, cpu]; null: one process."""
    address: str | None = None
    """Of the Ray cluster: auto, or host:port; null: one is started on this machine for the run."""

    def __post_init__(self) -> None:
        if self.kind not in ("local", "ray"):
            raise UserError(f"kind is {self.kind!r}", remedy="choose one of local, ray")
        if self.devices is not None and self.kind != "local":
            raise UserError(
                f"devices is {self.devices} with kind {self.kind!r}",
                remedy="Ray gives each worker a GPU of its own: say runner.workers=N, device=cuda",
            )
        if self.address is not None and self.kind != "ray":
            raise UserError(f"address is {self.address!r}", remedy="only runner=ray has one")
        if self.devices is not None and self.workers is not None:
            raise UserError(
                f"workers is {self.workers} and devices is {self.devices}",
                remedy="each device has one worker: leave workers=null",
            )
        if self.workers is not None and self.workers < 1:
            raise UserError(
                f"workers is {self.workers}", remedy="give 1 or more, or null for what fits"
            )
        if self.threads is not None and self.threads < 1:
            raise UserError(
                f"threads is {self.threads}", remedy="give 1 or more, or null for all CPUs"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class GcConfig:
    """What `mode=gc` frees: what is older, what is too much, what no run folder refers to."""

    max_age_days: float | None = None
    """Free results that were not used for so many days."""
    max_bytes: int | None = field(default=None, metadata={"unit": "bytes"})
    """Free the least recently used results beyond so many bytes."""
    unreferenced: bool = False
    """Free results that no run folder refers to."""
    dry_run: bool = True
    """Only say what would be freed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EnvironmentConfig:
    """Variables of the environment whose values may be written into a checkpoint."""

    published: list[str] = field(default_factory=list)
    """Their names; without them, save.name=${oc.env:NAME} and its like are refused.

    From the command line, an installed package or a folder of PRESSWORK_CONF only.
    """


@dataclass(frozen=True, kw_only=True, slots=True)
class LsConfig:
    """What `mode=ls` shows: all, or what has the text `filter` in its name."""

    filter: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PlanConfig:
    """What `mode=plan` shows: steps of one kind together, or every node with its key."""

    every_node: bool = False
    """A row for each node, with its key, also for those that are not needed."""
    elsewhere: bool = False
    """A plan for another machine: `device` need not be here."""
    workers: list[int] = field(default_factory=list)
    """A schedule on each of these numbers of workers: [8, 64]."""
    machine: MachineConfig = field(default_factory=MachineConfig)
    """Speeds of a worker, which the group `machine` fills; else those that mode=measure found."""

    def __post_init__(self) -> None:
        if any(count < 1 for count in self.workers):
            raise UserError(f"workers is {self.workers}", remedy="give numbers of 1 and more")


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """What `mode=report` makes again: the page of the run or of the sweep in a folder."""

    run: str | None = None
    """The folder of the run whose page is made again."""
    sweep: str | None = None
    """The folder of the sweep whose page is made again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DiffConfig:
    """When `mode=diff` calls two checkpoints different, and what it measures."""

    tolerance: float = 0.0
    """The relative difference of a tensor, by norms, that still passes; 0: every number equal."""
    statistics: str | None = None
    """The folder of a run whose calibration weighs errors; null: that of the first checkpoint."""

    def __post_init__(self) -> None:
        if not 0 <= self.tolerance < float("inf"):
            raise UserError(f"tolerance is {self.tolerance}", remedy="give 0 or more, such as 1e-6")


@dataclass(frozen=True, kw_only=True, slots=True)
class SweepConfig:
    """A sweep's jobs are checked before the first one starts."""

    skip_invalid: bool = False
    """Start all the same if some cannot run; they fail, and the others are done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SiteConfig:
    """One entry of `graph.nodes`.

    `each` names the site whose members this one is expanded over. A `final` site is a target of
    the run. `publish` names the folder of its result that is linked into the run folder.
    """

    kind: str
    each: str | None = None
    inputs: dict[str, str] = field(default_factory=dict)
    params: dict[str, Any] = field(default_factory=dict)
    final: bool = False
    publish: str | None = None

    def __post_init__(self) -> None:
        if self.publish is not None and not (
            NAME.fullmatch(self.publish) and self.publish not in RUN_FILES
        ):
            raise UserError(
                f"publish is {self.publish!r}",
                remedy="give the name of a folder of the result, such as checkpoint: letters, "
                "digits, '-', '_' and '.', and no file of the run",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphConfig:
    """The sites of a graph, names to choose wiring by, and free sections that it does not use.

    `roles` says which node is what, for references such as ${graph.roles.source}: modifiers that
    put another node in the place of one change it. `wiring` holds what a key of the config chooses
    among, as in ${graph.wiring.${calibrate.propagate}}.
    """

    nodes: dict[str, SiteConfig]
    roles: dict[str, str] = field(default_factory=dict)
    wiring: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in self.nodes:
            if not NAME.fullmatch(name):
                raise UserError(
                    f"nodes.{name} is no name of a node",
                    remedy="give letters, digits, '-', '_' and '.'",
                )


@dataclass(frozen=True, kw_only=True, slots=True)
class RootConfig:
    """The typed parts of a config."""

    mode: str
    """What to do with the config: run, plan, explain, ls, gc, verify, report, doctor, ..."""
    device: str
    """Where to compute: cpu, cuda, cuda:1; auto takes a GPU if there is one."""
    numerics: NumericsConfig
    """What decides the order of floating-point sums, and so the bytes of a result."""
    store: StoreConfig
    """Where results are kept, and for how long."""
    runner: RunnerConfig
    """Who builds the nodes of the graph."""
    gc: GcConfig
    """What `mode=gc` frees."""
    report: ReportConfig
    """What `mode=report` makes again."""
    runs: list[str]
    """Folders in which `mode=ls`, `mode=plan` and gc.unreferenced look for runs."""
    graph: GraphConfig
    """The steps of a run and how they are connected."""
    checkpoint: Any = None
    """The folder that `mode=verify` checks in place of the store, or `mode=inspect` reads.

    Two for `mode=diff`, as a list.
    """
    recipe: str | None = None
    """A file of another tool to translate; on the command line only."""
    objective: Any = None
    """Which numbers of result.json an optimizing sweeper is told."""
    tracker: Any = field(default=None, metadata={"component": "tracker"})
    """Who is told of each run; null: nobody."""
    environment: EnvironmentConfig = field(default_factory=EnvironmentConfig)
    """What of the environment may end up in a checkpoint."""
    ls: LsConfig = field(default_factory=LsConfig)
    """What `mode=ls` shows."""
    plan: PlanConfig = field(default_factory=PlanConfig)
    """What `mode=plan` shows."""
    diff: DiffConfig = field(default_factory=DiffConfig)
    """When `mode=diff` calls two checkpoints different."""
    sweep: SweepConfig = field(default_factory=SweepConfig)
    """What a sweep does before its first job."""
    key: str | None = None
    """The key that `mode=explain` explains, such as scheme.weights.group_size."""
    experiment: str | None = None
    """Which experiment this is: the name that `+experiment=NAME` chose. Not to be set by hand."""

    def __post_init__(self) -> None:
        if self.key is not None and self.mode != "explain":
            raise UserError(
                f"key is {self.key!r} with mode={self.mode}",
                remedy="only mode=explain looks at a key",
            )
        if self.checkpoint is not None:
            self._check_checkpoint()
        paths = self.objective if isinstance(self.objective, list) else [self.objective]
        if not all(path is None or isinstance(path, str) for path in paths):
            raise UserError(
                f"objective is {self.objective!r}",
                remedy=f"name a number of result.json, or several: {example()}",
            )

    @property
    def folders(self) -> tuple[str, ...]:
        """The folders that `checkpoint` names."""
        given = self.checkpoint if isinstance(self.checkpoint, list) else [self.checkpoint]
        return tuple(folder for folder in given if folder is not None)

    def _check_checkpoint(self) -> None:
        told = f"checkpoint is {self.checkpoint!r}"
        if self.mode not in EXAMINING:
            raise UserError(
                f"{told} with mode={self.mode}",
                remedy=f"only mode={', mode='.join(EXAMINING)} look at a checkpoint; a model to "
                "compress is given by model=local model.path=DIR",
            )
        if not all(isinstance(folder, str) and folder for folder in self.folders):
            raise UserError(told, remedy="give the path of a folder: checkpoint=DIR")
        if self.mode == "verify" and len(self.folders) > 1:
            raise UserError(f"{told} with mode=verify", remedy="check one at a time")
