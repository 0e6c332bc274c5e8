"""`mode=run`: build the missing results, publish the checkpoint, write the reports."""

from __future__ import annotations

import json
import logging
import shlex
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from pipeline.config.root import Config
from pipeline.errors import UserError
from pipeline.graph import Graph, Ref
from pipeline.machine.processor import processor
from pipeline.messages import message, together
from pipeline.planning.elsewhere import elsewhere_note, sums
from pipeline.planning.expand import expand
from pipeline.planning.plan import Plan, plan_rows
from pipeline.report.files import write_reports
from pipeline.report.progress import progress
from pipeline.report.record import NodeRecord, RunRecord, RunStatus
from pipeline.report.section import sections
from pipeline.report.summary import print_summary
from pipeline.report.text_files import write_text
from pipeline.runner.for_others import planned_in_passing
from pipeline.runner.listener import Watcher
from pipeline.runner.local import LocalRunner
from pipeline.runner.preflight import check_device, check_room
from pipeline.runner.schedule import before_sending
from pipeline.runner.workers.chosen import crews_of
from pipeline.store import Store, StoredArtifact, collect, link_tree
from pipeline.store.disk_errors import gone
from pipeline.store.noted_runs import note_run
from pipeline.store.processors import note_processor, noted_processors
from pipeline.trackers.tracked import tracked

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Run:
    """The state of one run; the report has what is known so far, however it ends."""

    config: Config
    run_dir: Path
    store: Store
    watcher: Watcher
    runner: LocalRunner
    started: float = field(default_factory=time.time)
    plan: Plan | None = None
    warnings: tuple[str, ...] = ()
    published: dict[str, Path] = field(default_factory=dict)

    def execute(self) -> None:
        sites = self.config.graph.sites
        expanded = expand(sites, mode="run", find=self.runner.find, build=self.runner.result)
        self.warnings = expanded.warnings
        for text in together(expanded.warnings):
            self.watcher.message(f"warning: {text}")
        self.plan = planned_in_passing(self.runner, expanded.graph)
        for text in self.elsewhere():
            self.watcher.message(f"note: {text}")
        rows = json.dumps(plan_rows(self.plan), indent=1)
        write_text(self.run_dir / "plan.json", rows + "\n")
        transient = self.runner.transient(expanded.graph)
        check_device(self.plan, self.config.device, transient)
        check_room(
            self.plan,
            transient,
            self.store.free_bytes(),
            str(self.store.root),
            processes=len(self.config.runner.devices or ("this",)),
        )
        own = before_sending(expanded.graph)
        self.runner.run(own)
        self.publish(expanded.graph)
        if own is not expanded.graph:
            self.runner.run(expanded.graph)

    def reported(self) -> dict[str, Any]:
        """Execute and write the reports, however it ends; result.json."""
        try:
            self.execute()
        except KeyboardInterrupt:
            self.watcher.stop()
            self.ended("interrupted")
            raise
        except (UserError, OSError) as error:
            self.watcher.stop()
            told = error if isinstance(error, UserError) else gone(error, self.store.root)
            if told is None:
                raise
            result = self.ended("failed", str(told))
            if result is not None:
                track(self.config, result, self.run_dir)
            if told is error:
                raise
            raise told from error
        self.watcher.stop()
        return write_reports(self.record("ok"))

    def elsewhere(self) -> tuple[str, ...]:
        """What is stored from another processor, and not used; this one is noted for others."""
        if self.plan is None or not sums(self.plan.graph):
            return ()
        others = noted_processors(self.store.layout)
        note_processor(self.store.layout, processor())
        return elsewhere_note(self.plan, others, self.store.has)

    def publish(self, graph: Graph) -> None:
        """Link the results that sites publish into the run folder."""
        for name, site in self.config.graph.sites.items():
            if site.publish is None or site.each is not None:
                continue
            artifact = self.store.get(graph.keys[Ref(node=name, output=site.stage.outputs[0])])
            if artifact is None:
                raise UserError(
                    f"the result of {name} is gone from the store",
                    remedy="run the same command again",
                )
            if not (artifact.path / site.publish).is_dir():
                named = sorted(path.name for path in artifact.path.iterdir() if path.is_dir())
                raise UserError(
                    f"graph.nodes.{name}.publish is {site.publish!r}, no folder of its result",
                    remedy=f"it has {', '.join(named) or 'no folder'}",
                )
            target = self.run_dir / site.publish
            link_tree(artifact, target, site.publish)
            self.published[site.publish] = target

    def ended(self, status: RunStatus, error: str | None = None) -> dict[str, Any] | None:
        """Write the reports of a run that was not done; what keeps them from it is only told."""
        try:
            return write_reports(self.record(status, error))
        except UserError as unwritten:
            message(f"warning: {unwritten}")
            return None

    def record(self, status: RunStatus, error: str | None = None) -> RunRecord:
        return RunRecord(
            run_dir=self.run_dir,
            status=status,
            nodes=self.nodes(),
            config=self.config.resolved,
            plan=plan_rows(self.plan) if self.plan else [],
            started=self.started,
            seconds=time.time() - self.started,
            checkpoint=self.published.get("checkpoint"),
            warnings=self.warnings,
            error=error,
            resume="" if status == "ok" else command(self.run_dir),
            command=self.config.command or command(self.run_dir),
            passing=self.runner.passing,
            beside=self.runner.beside,
        )

    def nodes(self) -> tuple[NodeRecord, ...]:
        if self.plan is None:
            return ()
        return tuple(self.node(self.plan, name) for name in self.plan.steps)

    def node(self, plan: Plan, name: str) -> NodeRecord:
        step = plan.steps[name]
        node = step.node
        keys = {output: plan.graph.keys[Ref(node=name, output=output)] for output in node.outputs}
        stored = [a for key in keys.values() if (a := self.store.get(key)) is not None]
        outcome = self.runner.outcomes.get(name)
        return NodeRecord(
            name=name,
            kind=node.kind,
            keys=keys,
            status=outcome.status if outcome else "idle",
            started=outcome.started if outcome else self.started,
            seconds=outcome.seconds if outcome else 0.0,
            peak_rss_bytes=outcome.peak_rss_bytes if outcome else 0,
            bytes=outcome.bytes if outcome else sum(a.bytes for a in stored),
            recorded_seconds=max((_seconds(a) for a in stored), default=0.0),
            metas=tuple(artifact.meta for artifact in stored),
            peak_device_bytes=outcome.peak_device_bytes if outcome else None,
            stored=outcome.stored if outcome else None,
            worker=outcome.worker if outcome else "",
        )


def run(config: Config, run_dir: Path) -> int:
    """Run the graph of `config`; write its result, report and checkpoint into `run_dir`.

    Raises UserError or StageFailed after writing what is known to result.json; the store keeps
    every finished result.
    """
    result = performed(config, run_dir, progress())
    print_summary(result, run_dir, Console(highlight=False))
    return 0


def performed(config: Config, run_dir: Path, watcher: Watcher) -> dict[str, Any]:
    """Run as `run` does, tell `watcher` of it, print nothing; result.json."""
    sections()  # one that cannot be imported is an error now, not after hours of work
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
    current = _Run(config=config, run_dir=run_dir, store=store, watcher=watcher, runner=runner)
    try:
        with runner.leased():  # publishing and reports read the store as well
            result = current.reported()
    finally:
        watcher.stop()
    log.info("done in %.1f s", result["seconds"])
    track(config, result, run_dir)
    if config.store.max_bytes is not None and store.writable:
        collect(store, dry_run=False)
    return result


def track(config: Config, result: Mapping[str, Any], run_dir: Path) -> None:
    """Send a run to the tracker; failing to do so does not fail a run that is done."""
    if config.tracker is None:
        return
    try:
        config.tracker.log(tracked(result, config.resolved, run_dir))
    except UserError as error:
        log.warning("%s", error)
        again = f"tell it later with mode=report report.run={run_dir} and the same tracker"
        sys.stderr.write(f"warning: {error}\n  {again}\n")


def command(run_dir: Path) -> str:
    """The command that resumes the run of a folder."""
    words = ["python", "-m", "pipeline", "--config-dir", str(run_dir), "--config-name", "config"]
    return shlex.join(words)


def _seconds(artifact: StoredArtifact) -> float:
    value: Any = artifact.record.get("seconds", 0.0)
    return float(value)
