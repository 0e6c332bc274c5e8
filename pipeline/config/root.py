"""The root of a config: its typed parts, its free sections, and the strict way from YAML to them.

Typed parts have a schema here. Every other top-level key is a free section (`model`, `dataset`,
`scheme`, ...): the framework knows nothing of it but that the graph must use all of it, by
reference from `graph.nodes.<site>.params`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.recipe_import import check_given
from pipeline.config.references import References, aliases
from pipeline.config.schema import build
from pipeline.config.unused_keys import WrittenNames, unreached, without_effect
from pipeline.errors import ManyErrors, UserError
from pipeline.machine import resolve_device, usable_cpus
from pipeline.modes import MODES
from pipeline.registry import Registry, choices
from pipeline.report.section import example
from pipeline.stage import Stage
from pipeline.store import StoreConfig
from pipeline.trackers.tracked import Tracker

GRAPH_MODES = ("run", "plan", "sensitivity")
"""The modes that look at the graph; the others work whatever the graph says."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NumericsConfig:
    """What decides the order of floating-point sums: the device and the threads of an operation."""

    device: str
    """cpu or cuda, as `device` of the config was resolved."""
    threads: int
    """Threads of one operation; part of the result, since it decides the order of sums."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunnerConfig:
    """Who runs the nodes: `workers` nodes at a time, each with `threads` threads."""

    kind: str = "local"
    """Who builds the nodes."""
    workers: int | None = None
    """Nodes at a time; null: as many as the stages say."""
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.kind != "local":
            raise UserError(f"kind is {self.kind!r}", remedy="the only kind is local")
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
    max_bytes: int | None = None
    """Free the least recently used results beyond so many bytes."""
    unreferenced: bool = False
    """Free results that no run folder refers to."""
    dry_run: bool = True
    """Only say what would be freed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LsConfig:
    """What `mode=ls` shows: all, or what has the text `filter` in its name."""

    filter: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ReportConfig:
    """What `mode=report` makes again: the page of the run or of the sweep in a folder."""

    run: str | None = None
    """The folder of the run whose page is made again."""
    sweep: str | None = None
    """The folder of the sweep whose page is made again."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphConfig:
    """The sites of a graph, names to choose wiring by, and free sections that it does not use."""

    nodes: dict[str, SiteConfig]
    wiring: dict[str, str] = field(default_factory=dict)
    unused: list[str] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True, slots=True)
class RootConfig:
    """The typed parts of a config."""

    mode: str
    """What to do with the config: run, plan, explain, ls, gc, verify, report, doctor, ..."""
    device: str
    """Where to compute: auto takes a GPU if there is one."""
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
    checkpoint: str | None = None
    """The folder that `mode=verify` checks in place of the store."""
    recipe: str | None = None
    """A file of another tool to translate; on the command line only."""
    objective: Any = None
    """Which numbers of result.json an optimizing sweeper is told."""
    tracker: Any = field(default=None, metadata={"component": "tracker"})
    """Who is told of each run; null: nobody."""
    ls: LsConfig = field(default_factory=LsConfig)
    """What `mode=ls` shows."""
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
        if self.checkpoint is not None and self.mode != "verify":
            raise UserError(
                f"checkpoint is {self.checkpoint!r} with mode={self.mode}",
                remedy="only mode=verify looks at a checkpoint; a model to compress is given by "
                "model=local model.path=DIR",
            )
        paths = self.objective if isinstance(self.objective, list) else [self.objective]
        if not all(path is None or isinstance(path, str) for path in paths):
            raise UserError(
                f"objective is {self.objective!r}",
                remedy=f"name a number of result.json, or several: {example()}",
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class SitePlan:
    """A site with its stage made from its params."""

    name: str
    stage: Stage
    each: str | None
    inputs: Mapping[str, str]
    final: bool
    publish: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class GraphPlan:
    """The sites of a run by name."""

    sites: Mapping[str, SitePlan]


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """All that a mode is told. `graph` has no sites in modes that do not look at the graph.

    `sections` are the free sections, resolved. `resolved` is the whole config for config.yaml:
    resolved values, and the graph with its references, so that overrides of it still work. `runs`
    are the folders below which runs are looked for. `checkpoint` is the folder that mode=verify
    checks in place of the store. `tracker` is told of each run; None: nobody is. `key` is what
    mode=explain explains. `raw` is the config as it was composed, with its references.
    """

    mode: str
    device: str
    numerics: NumericsConfig
    store: StoreConfig
    runner: RunnerConfig
    gc: GcConfig
    report: ReportConfig
    ls: LsConfig
    key: str | None
    checkpoint: Path | None
    tracker: Tracker | None
    runs: tuple[Path, ...]
    graph: GraphPlan
    sections: Mapping[str, Any]
    resolved: Mapping[str, Any]
    raw: Mapping[str, Any]


def load_config(
    cfg: DictConfig,
    registry: Registry,
    *,
    overrides: Sequence[str] = (),
    cwd: Path | None = None,
    experiment: str | None = None,
) -> Config:
    """Check a composed config in full and make the stages that its graph names.

    `overrides` are those of the command line, `cwd` is what relative folders are relative to,
    `experiment` the one that was chosen, if the config does not say.
    Raises UserError or ManyErrors with every mistake, in the names that a person wrote.
    """
    cfg = _settled(cfg, cwd or Path.cwd())
    if experiment is not None:
        cfg.experiment = experiment
    raw = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False))
    uses_graph = raw["mode"] in GRAPH_MODES
    trace = References(raw)
    trace.follow(("graph", "nodes"))
    if uses_graph and trace.problems:
        _raise(trace.problems)
    plain = _resolved(cfg) if uses_graph else _without_graph(cfg)
    root = build(RootConfig, {k: v for k, v in plain.items() if k in _TYPED}, "", registry)
    check_given(root.recipe, overrides)
    unused = tuple(raw["graph"].get("unused") or ())
    problems = list(without_effect(overrides, unused if uses_graph else ()))
    problems += unreached(raw, trace, typed=_TYPED, unused=unused)
    sites, more = _sites(root.graph, raw, registry)
    if problems := [*problems, *more]:
        _raise(problems)
    sections = {name: value for name, value in plain.items() if name not in _TYPED}
    return Config(
        mode=root.mode,
        device=root.device,
        numerics=root.numerics,
        store=root.store,
        runner=root.runner,
        gc=root.gc,
        report=root.report,
        tracker=root.tracker,
        ls=root.ls,
        key=root.key,
        checkpoint=None
        if root.checkpoint is None
        else (cwd or Path.cwd()) / Path(root.checkpoint).expanduser(),
        runs=tuple((cwd or Path.cwd()) / folder for folder in root.runs),
        graph=GraphPlan(sites=sites),
        sections=sections,
        # what a recipe said is in the sections now: the file is not needed to run this again
        resolved={**(_rerunnable(raw, plain) if uses_graph else plain), "recipe": None},
        raw=raw,
    )


_TYPED = tuple(RootConfig.__dataclass_fields__)
_OPTIONAL = ("checkpoint", "recipe", "tracker", "objective", "ls", "key", "experiment")


def _settled(cfg: DictConfig, cwd: Path) -> DictConfig:
    """The config with the values that depend on this machine and folder filled in."""
    if missing := [name for name in _TYPED if name not in cfg and name not in _OPTIONAL]:
        raise UserError(
            f"{', '.join(missing)}: not in this config",
            remedy="a primary config of one's own needs `defaults: [/base, ...]`",
        )
    mode = cfg.mode
    if mode not in MODES:
        raise UserError(f"mode is {mode!r}", remedy=choices(str(mode), MODES))
    settled = cast(DictConfig, OmegaConf.create(OmegaConf.to_container(cfg, resolve=False)))
    settled.device = resolve_device(str(cfg.device))
    if OmegaConf.is_dict(cfg.runner) and cfg.runner.get("threads") is None:
        settled.runner.threads = usable_cpus()
    if OmegaConf.is_dict(cfg.store) and isinstance(cfg.store.get("dir"), str):
        settled.store.dir = str(cwd / Path(cfg.store.dir).expanduser())
    return settled


def _resolved(cfg: Any) -> dict[str, Any]:
    try:
        return cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    except OmegaConfBaseException as error:
        first = str(error).splitlines()[0]
        raise UserError(f"{error.full_key}: {first}" if error.full_key else first) from error
    except RecursionError as error:
        raise UserError("the config refers to itself in a circle") from error


def _without_graph(cfg: DictConfig) -> dict[str, Any]:
    """The typed parts, resolved; free sections may have gaps where no graph is made."""
    typed = [name for name in _TYPED if name != "graph" and name in cfg]
    return {**_resolved(OmegaConf.masked_copy(cfg, typed)), "graph": {"nodes": {}}}


def _sites(
    graph: GraphConfig, raw: Mapping[str, Any], registry: Registry
) -> tuple[dict[str, SitePlan], list[UserError]]:
    """Every site with its stage, and what is wrong with the others."""
    sites: dict[str, SitePlan] = {}
    problems: list[UserError] = []
    for name, site in graph.nodes.items():
        here = f"graph.nodes.{name}"
        params = f"{here}.params"
        written = raw["graph"]["nodes"][name].get("params", {})
        told_as = WrittenNames(dict(aliases(written, tuple(params.split(".")))))
        try:
            stage = registry.get("stage", site.kind)
        except UserError as error:
            problems.append(UserError(f"{here}.kind: {error.what}", remedy=error.remedy))
            continue
        try:
            config = build(stage.Config, site.params, params, registry, told_as=told_as)
        except ManyErrors as errors:
            problems += errors.errors
        except UserError as error:
            problems.append(error)
        else:
            sites[name] = SitePlan(
                name=name,
                stage=stage(config),
                each=site.each,
                inputs=site.inputs,
                final=site.final,
                publish=site.publish,
            )
    return sites, problems


def _rerunnable(raw: Mapping[str, Any], plain: Mapping[str, Any]) -> dict[str, Any]:
    """Resolved values; in the graph and in numerics, references to keys are kept as they are."""
    kept = ("graph", "numerics")
    return {
        name: _with_references(raw[name], value) if name in kept else value
        for name, value in plain.items()
    }


def _with_references(raw: Any, plain: Any) -> Any:
    if isinstance(raw, Mapping) and isinstance(plain, Mapping):
        return {name: _with_references(value, plain[name]) for name, value in raw.items()}
    if isinstance(raw, str) and "${" in raw and ":" not in raw:
        return raw
    return plain


def _raise(problems: Sequence[UserError]) -> None:
    told = list({str(problem): problem for problem in problems}.values())
    raise told[0] if len(told) == 1 else ManyErrors(told)
