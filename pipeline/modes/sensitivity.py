"""`mode=sensitivity`: build the nodes of kind `sensitivity` alone and report their results."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from pipeline.config.root import Config
from pipeline.errors import UserError
from pipeline.graph import Graph, Ref
from pipeline.planning.expand import expand, towards
from pipeline.planning.inputs import upstream
from pipeline.planning.plan import plan_rows
from pipeline.planning.site import SitePlan
from pipeline.registry import Registry
from pipeline.report.progress import progress
from pipeline.report.section import Study
from pipeline.report.text_files import write_text
from pipeline.runner.for_others import planned_in_passing
from pipeline.runner.local import LocalRunner
from pipeline.runner.preflight import check_device, check_room
from pipeline.runner.workers.chosen import crews_of
from pipeline.runs.folders import SENSITIVITY as FILE
from pipeline.store import Store
from pipeline.store.noted_runs import note_run

KIND = "sensitivity"
PAGE = "sensitivity.html"


def sensitivity(config: Config, run_dir: Path) -> int:
    """Write the results of the nodes of kind `sensitivity`, and what they need; exit code 0.

    Leaves sensitivity.json and sensitivity.html in `run_dir`, as the report section of that name
    makes them. A run afterwards reuses the nodes.
    """
    study = _study()
    name = _site(config.graph.sites, study)
    watcher = progress()
    store = Store(config.store, warn=watcher.message)
    note_run(store.layout, run_dir)
    runner = LocalRunner(
        store,
        workers=config.runner.workers,
        keep_transient=config.store.keep_activations,
        watcher=watcher,
        others=config.others,
        crews=crews_of(config.runner, config.device),
    )
    try:
        with runner.leased():
            graph = _measured(config, run_dir, runner, name)
            content = study.collect([_content(store, graph, ref) for ref in graph.targets])
    finally:
        watcher.stop()
    write_text(run_dir / FILE, json.dumps(content, indent=1) + "\n")
    write_text(run_dir / PAGE, study.page(content, config.resolved))
    console = Console(highlight=False)
    console.print(study.table(content))
    console.print(f"page  {escape(str(run_dir / PAGE))}", soft_wrap=True)
    return 0


def _measured(config: Config, run_dir: Path, runner: LocalRunner, name: str) -> Graph:
    """Build all nodes of the site `name`; the graph whose targets they are."""
    store, sites = runner.store, upstream(config.graph.sites, name)
    expanded = expand(sites, mode="run", find=runner.find, build=runner.result)
    for text in expanded.warnings:
        runner.watcher.message(f"warning: {text}")
    graph = towards(expanded.graph, name)
    plan = planned_in_passing(runner, graph)
    rows = json.dumps(plan_rows(plan), indent=1)
    write_text(run_dir / "plan.json", rows + "\n")
    check_device(plan, config.device, runner.transient(graph))
    check_room(plan, runner.transient(graph), store.free_bytes(), str(store.root))
    runner.run(graph)
    return graph


def _study() -> Study:
    """The study of the report section `sensitivity`. Raises UserError if there is none."""
    study: Study | None = Registry.load().get("report", KIND).study
    if study is None:
        raise UserError(f"the report section {KIND!r} has no study")
    return study


def _site(sites: Mapping[str, SitePlan], study: Study) -> str:
    for name, site in sites.items():
        if site.stage.kind == KIND:
            return name
    raise UserError(study.missing, remedy=study.remedy)


def _content(store: Store, graph: Graph, ref: Ref) -> Mapping[str, Any]:
    artifact = store.get(graph.keys[ref])
    if artifact is None:
        raise UserError(
            f"the result of {ref.node} is gone from the store", remedy="run the same command again"
        )
    content: Mapping[str, Any] = artifact.json(FILE)
    return content
