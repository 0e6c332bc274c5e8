"""Loading a composed config: resolve, check every key, make the stages of the graph.

Typed parts have a schema (pipeline.config.root_schema). Every other top-level key is a free section
(`model`, `dataset`, `scheme`, ...): the framework only knows that the graph must use all of it, by
references from `graph.nodes.<site>.params`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

import pipeline
from pipeline.config.environment import Environment
from pipeline.config.recipe_import import check_given
from pipeline.config.references import References, aliases
from pipeline.config.roles import wire
from pipeline.config.root_schema import (
    DiffConfig,
    GcConfig,
    GraphConfig,
    LsConfig,
    NumericsConfig,
    PlanConfig,
    ReportConfig,
    RootConfig,
    RunnerConfig,
)
from pipeline.config.schema import build, in_words
from pipeline.config.unused_keys import WrittenNames, unreached, without_effect
from pipeline.errors import ManyErrors, UserError
from pipeline.machine.devices import resolve_device, resolve_devices, usable_cpus
from pipeline.masking import is_secret
from pipeline.nested import leaves
from pipeline.objective import check_paths
from pipeline.planning.site import GraphPlan, SitePlan
from pipeline.registry import Registry, choices
from pipeline.store import StoreConfig

if TYPE_CHECKING:
    from pipeline.trackers.tracked import Tracker  # it knows reports and their templates

MODES = tuple(sorted(module.name for module in iter_modules([f"{pipeline.__path__[0]}/modes"])))
"""What `mode=` may say: the modules of `pipeline.modes`, none of which is imported here."""
GRAPH_MODES = ("run", "plan", "sensitivity")
"""The modes that use the graph; the others ignore it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """The loaded config that a mode receives. `graph` has no sites in modes that do not use it.

    `sections` are the free sections, resolved. `resolved` is the whole config for config.yaml:
    resolved values, but for those of the environment, and the graph with its references, so that
    overrides of it still work. `runs` are the folders searched for runs. `checkpoints` are the
    folders that mode=verify checks instead of the store, and that mode=inspect and mode=diff read.
    `tracker` receives each run, unless None. `key` is the one that mode=explain explains. `raw` is
    the config as it was composed, with its references. `others` are keys of results that other jobs
    of the same sweep will want, `command` the command line, quoted for a shell (empty where there
    was none); no part of any config.
    """

    mode: str
    device: str
    numerics: NumericsConfig
    store: StoreConfig
    runner: RunnerConfig
    gc: GcConfig
    report: ReportConfig
    ls: LsConfig
    plan: PlanConfig
    diff: DiffConfig
    key: str | None
    checkpoints: tuple[Path, ...]
    tracker: Tracker | None
    runs: tuple[Path, ...]
    graph: GraphPlan
    sections: Mapping[str, Any]
    resolved: Mapping[str, Any]
    raw: Mapping[str, Any]
    others: frozenset[str] = frozenset()
    command: str = ""


def load_config(
    cfg: DictConfig,
    registry: Registry,
    *,
    overrides: Sequence[str] = (),
    cwd: Path | None = None,
    experiment: str | None = None,
) -> Config:
    """Validate a composed config and make the stages that its graph names.

    `overrides` are those of the command line, `cwd` is the base of relative folders, `experiment`
    the chosen one, if the config does not name it. Raises UserError or ManyErrors with every
    mistake, under the names that the user wrote.
    """
    cfg = _with_defaults(cfg, cwd or Path.cwd())
    if cfg.mode in GRAPH_MODES:
        wire(cfg, registry)
    if experiment is not None:
        cfg.experiment = experiment
    raw = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False))
    _check_graph(raw)
    environment = Environment.of(cfg, _published(raw))
    uses_graph = raw["mode"] in GRAPH_MODES
    trace = References(raw)
    trace.follow(("graph", "nodes"))
    if uses_graph and trace.problems:
        _raise(trace.problems)
    plain = _resolved(cfg) if uses_graph else _without_graph(cfg)
    if secrets := [*_secrets(raw, environment), *_secrets(plain, environment)]:
        _raise(secrets)
    typed = {name: value for name, value in plain.items() if name in _TYPED}
    root = build(RootConfig, typed, "", registry, environment=environment)
    check_given(root.recipe, overrides)
    if uses_graph and root.objective:
        check_paths(
            root.objective if isinstance(root.objective, list) else [root.objective],
            {site.kind for site in root.graph.nodes.values()},
        )
    unused = tuple(raw["graph"].get("unused") or ())
    problems = list(without_effect(overrides, unused if uses_graph else ()))
    problems += unreached(raw, trace, typed=_TYPED, unused=unused)
    sites, more = _sites(root.graph, raw, registry, environment)
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
        plan=root.plan,
        diff=root.diff,
        key=root.key,
        checkpoints=tuple(
            (cwd or Path.cwd()) / Path(folder).expanduser() for folder in root.folders
        ),
        runs=tuple((cwd or Path.cwd()) / folder for folder in root.runs),
        graph=GraphPlan(sites=sites),
        sections=sections,
        # the recipe is translated into the sections: rerunning does not need its file
        resolved={
            **(_rerunnable(raw, environment.kept(raw, plain)) if uses_graph else plain),
            "recipe": None,
        },
        raw=raw,
    )


_TYPED = tuple(RootConfig.__dataclass_fields__)
_OPTIONAL = frozenset(
    (
        "checkpoint",
        "recipe",
        "tracker",
        "objective",
        "ls",
        "plan",
        "diff",
        "key",
        "experiment",
        "environment",
        "sweep",
    )
)


def _with_defaults(cfg: DictConfig, cwd: Path) -> DictConfig:
    """The config with the values filled in that depend on this machine and folder."""
    if missing := [name for name in _TYPED if name not in cfg and name not in _OPTIONAL]:
        raise UserError(
            f"{', '.join(missing)}: not in this config",
            remedy="a primary config of one's own needs `defaults: [/base, ...]`",
        )
    mode = cfg.mode
    if mode not in MODES:
        raise UserError(f"mode is {mode!r}", remedy=choices(str(mode), MODES))
    filled = cast(DictConfig, OmegaConf.create(OmegaConf.to_container(cfg, resolve=False)))
    elsewhere = mode == "plan" and OmegaConf.select(cfg, "plan.elsewhere") is True
    here = mode in (*GRAPH_MODES, "measure") and not elsewhere
    devices: Any = cfg.runner.get("devices") if OmegaConf.is_dict(cfg.runner) else None
    if OmegaConf.is_list(devices):
        named = resolve_devices(list(devices), str(cfg.device), must_exist=here)
        filled.runner.devices = list(named)
        filled.device = named[0].partition(":")[0]
    else:
        filled.device = resolve_device(str(cfg.device), must_exist=here, planned=mode == "plan")
    if OmegaConf.is_dict(cfg.runner) and cfg.runner.get("threads") is None:
        filled.runner.threads = usable_cpus()
    if OmegaConf.is_dict(cfg.store) and isinstance(cfg.store.get("dir"), str):
        store = cast(dict[str, Any], OmegaConf.to_container(cfg.store, resolve=False))
        filled.store.dir = _absolute(str(store["dir"]), cfg.store.dir, cwd)
    return filled


def _absolute(written: str, folder: str, cwd: Path) -> str:
    """A folder as an absolute path, its variables of the environment kept as they are written."""
    if "oc.env" not in written or folder.startswith("~"):
        return str(cwd / Path(folder).expanduser())
    return written if Path(folder).is_absolute() else f"{cwd}/{written}"


def _check_graph(raw: Mapping[str, Any]) -> None:
    """Raise UserError for a graph without a mapping of nodes, which all else looks into."""
    graph = raw["graph"]
    nodes = graph.get("nodes") if isinstance(graph, Mapping) else None
    if not isinstance(nodes, Mapping):
        named = f"graph.nodes is {nodes!r}" if isinstance(graph, Mapping) else f"graph is {graph!r}"
        raise UserError(
            f"{named}, which is no mapping",
            remedy="choose one: graph=calibrated; graph.nodes maps names to a kind, params, inputs",
        )
    for name, node in nodes.items():
        if not isinstance(node, Mapping):
            raise UserError(
                f"graph.nodes.{name}: {node!r} ({in_words(type(node))}) is given where a mapping "
                "belongs"
            )


def _published(raw: Mapping[str, Any]) -> tuple[str, ...]:
    """The variables that a config allows to publish, as far as they are a list of texts."""
    section = raw.get("environment")
    names = section.get("published") if isinstance(section, Mapping) else None
    return tuple(map(str, names)) if isinstance(names, list) else ()


def _secrets(values: Mapping[str, Any], environment: Environment) -> list[UserError]:
    """A problem for every value that is an access key, which no key takes, or has a zero byte."""
    nul = [
        UserError(f"{'.'.join(path)} holds a zero byte", remedy="no text or path has one")
        for path, leaf in leaves(values)
        if isinstance(leaf, str) and "\0" in leaf
    ]
    return nul + [
        UserError(
            f"{'.'.join(path)} is {environment.shown('.'.join(path), leaf)}, an access key",
            remedy="no key takes one: the library that needs it reads its own variable of the "
            "environment",
        )
        for path, leaf in leaves(values)
        if isinstance(leaf, str) and path[0] != "graph" and is_secret(leaf)
    ]


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
    graph: GraphConfig, raw: Mapping[str, Any], registry: Registry, environment: Environment
) -> tuple[dict[str, SitePlan], list[UserError]]:
    """Every valid site with its stage, and the problems of the others."""
    sites: dict[str, SitePlan] = {}
    problems: list[UserError] = []
    for name, site in graph.nodes.items():
        here = f"graph.nodes.{name}"
        params = f"{here}.params"
        written = raw["graph"]["nodes"][name].get("params", {})
        names = WrittenNames(dict(aliases(written, tuple(params.split(".")))))
        try:
            stage = registry.get("stage", site.kind)
        except UserError as error:
            problems.append(UserError(f"{here}.kind: {error.what}", remedy=error.remedy))
            continue
        try:
            config = build(
                stage.Config, site.params, params, registry, told_as=names, environment=environment
            )
        except ManyErrors as errors:
            problems += (names.without(params, error) for error in errors.errors)
        except UserError as error:
            problems.append(names.without(params, error))
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
    distinct = list({str(problem): problem for problem in problems}.values())
    raise distinct[0] if len(distinct) == 1 else ManyErrors(distinct)
