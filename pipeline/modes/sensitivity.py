"""`mode=sensitivity`: what each candidate format would cost each module; it compresses nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.config.root import Config, SitePlan
from pipeline.errors import UserError
from pipeline.graph import Graph, Ref
from pipeline.planning.expand import expand, upstream
from pipeline.planning.plan import make_plan, plan_rows
from pipeline.report.progress import progress
from pipeline.report.sensitivity import FILE, collected, print_table, render
from pipeline.runner.local import LocalRunner
from pipeline.runner.preflight import check_room
from pipeline.store import Store

KIND = "sensitivity"


def sensitivity(config: Config, run_dir: Path) -> int:
    """Build the nodes of kind `sensitivity` and write what they found; exit code 0.

    Leaves sensitivity.json and sensitivity.html in `run_dir`. A run afterwards reuses the nodes.
    """
    name = _site(config.graph.sites)
    sites = upstream(config.graph.sites, name)
    watcher = progress()
    store = Store(config.store, warn=watcher.message)
    runner = LocalRunner(
        store,
        {each: site.stage for each, site in sites.items()},
        workers=config.runner.workers,
        keep_transient=config.store.keep_activations,
        watcher=watcher,
    )
    try:
        expanded = expand(sites, mode="run", find=store.get, build=runner.result)
        for text in expanded.warnings:
            watcher.message(f"warning: {text}")
        graph = _towards(expanded.graph, name)
        plan = make_plan(graph, store.has)
        rows = json.dumps(plan_rows(plan), indent=1)
        (run_dir / "plan.json").write_text(rows + "\n", encoding="utf-8")
        check_room(plan, runner.transient, store.free_bytes(), str(store.root))
        runner.run(graph)
    finally:
        watcher.stop()
    found = collected([_content(store, graph, ref) for ref in graph.targets])
    (run_dir / FILE).write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    page = run_dir / "sensitivity.html"
    page.write_text(render(found, config.resolved), encoding="utf-8")
    print_table(found, run_dir, Console(highlight=False))
    return 0


def _site(sites: Mapping[str, SitePlan]) -> str:
    for name, site in sites.items():
        if site.stage.kind == KIND:
            return name
    raise UserError(
        "nothing in this graph measures sensitivities",
        remedy="say scheme=auto 'scheme.candidates=[w4a16,w8a16]'",
    )


def _towards(graph: Graph, site: str) -> Graph:
    """The graph with all nodes of one site as its targets."""
    targets = [
        Ref(node=node.name, output=output)
        for node in graph.nodes.values()
        if node.site == site
        for output in node.outputs
    ]
    return Graph(nodes=graph.nodes, keys=graph.keys, targets=tuple(targets))


def _content(store: Store, graph: Graph, ref: Ref) -> Mapping[str, Any]:
    artifact = store.get(graph.keys[ref])
    if artifact is None:
        raise UserError(
            f"the result of {ref.node} is gone from the store", remedy="run the same command again"
        )
    content: Mapping[str, Any] = artifact.json(FILE)
    return content
