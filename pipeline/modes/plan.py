"""`mode=plan`: print the expanded graph with cost estimates, without loading any weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.config.root import Config
from pipeline.machine.devices import unusable
from pipeline.machine.gpus import gpu_of
from pipeline.masking import masked
from pipeline.planning.elsewhere import elsewhere_note
from pipeline.planning.expand import expand, never
from pipeline.planning.plan import Plan, make_plan, plan_rows, totals, totals_by_kind
from pipeline.report.units import nearby, size
from pipeline.runner.forecast import Forecast, forecast
from pipeline.runner.preflight import check_device
from pipeline.runner.schedule import Transient, transient_outputs
from pipeline.runs.diff import Difference, difference, last_alike
from pipeline.runs.folders import Run, find_runs
from pipeline.store import Store
from pipeline.store.processors import noted_processors

_STATUS = {"hit": "cached", "build": "to run", "idle": "not needed"}


@dataclass(frozen=True, kw_only=True, slots=True)
class Planned:
    """A graph with what of it is stored, what it will take, and what to know before it runs."""

    store: Store
    graph: Plan
    transient: Transient
    expected: Forecast
    warnings: tuple[str, ...]
    notes: tuple[str, ...]


def planned_for(config: Config) -> Planned:
    """Expand and estimate the graph of a config. Raises UserError for one that cannot run."""
    store = Store(config.store)
    expanded = expand(config.graph.sites, mode="plan", find=store.get, build=never)
    graph = make_plan(expanded.graph, lambda key: store.get(key) is not None)
    transient = transient_outputs(expanded.graph, keep=config.store.keep_activations)
    gpu = gpu_of(config.device)
    expected = forecast(
        graph,
        transient,
        copy_every=config.store.copy_every,
        device_bytes=gpu.total_bytes if gpu else 0,
    )
    noted = noted_processors(store.layout)
    elsewhere = elsewhere_note(graph, noted, lambda key: store.get(key) is not None)
    return Planned(
        store=store,
        graph=graph,
        transient=transient,
        expected=expected,
        warnings=expanded.warnings,
        notes=(*expanded.notes, *elsewhere),
    )


def plan(config: Config, run_dir: Path) -> int:
    """Print every node with its status and estimates; exit code 0 if the config is valid."""
    del run_dir
    found = planned_for(config)
    planned, expected = found.graph, found.expected
    console = Console()
    table = Table("node", "kind", "status", "key", box=None, header_style="bold")
    table.columns[0].no_wrap = True
    table.columns[0].min_width = max(len(row["name"]) for row in plan_rows(planned))
    for heading in ("writes", "memory", "time"):
        table.add_column(heading, justify="right")
    for row in plan_rows(planned):
        cost = row["estimate"]
        table.add_row(
            row["name"],
            row["kind"],
            _STATUS[row["status"]],
            next(iter(row["keys"].values()))[:12],
            _cost(expected.written[row["name"]]),
            _cost(cost["memory"]),
            f"{cost['seconds']:.1f} s" if cost["seconds"] else "",
        )
    console.print(table)
    for text in found.warnings:
        console.print(f"warning: {text}", markup=False)
    for text in found.notes:
        console.print(f"note: {text}", markup=False)
    away = config.device != "cpu" and unusable(config.device)
    if away:
        console.print(
            f"note: device={config.device}, but {away}: times are those of an H200, and keys will "
            "be others where the model of the GPU is known",
            markup=False,
        )
    if expected.held:
        console.print(between(expected), highlight=False)
    total = totals(planned)
    written = sum(expected.written[step.node.name] for step in planned.building())
    on_device = f"{size(expected.device_memory)} of the GPU, " if expected.device_memory else ""
    if on_device:
        console.print(by_kind(planned))
    console.print(
        f"{total['build']:.0f} nodes to run, {total['reused']:.0f} cached. Estimates: "
        f"{size(written + expected.copied)} written, "
        f"{size(expected.memory + expected.storing)} peak memory, "
        f"{on_device}{total['seconds']:.0f} s on {'such a' if away else 'this'} machine.",
        highlight=False,
    )
    check_device(planned, config.device, found.transient)
    last = last_alike(find_runs(config.runs), config.resolved)
    if last is not None:
        changes = difference(last.folder, config.resolved, plan_rows(planned))
        print_difference(changes, last, console)
    return 0


def by_kind(planned: Plan) -> Table:
    """What every kind of step needs: the most memory of one node, disk and time of all."""
    table = Table("kind", box=None, header_style="bold")
    for heading in ("to run", "device memory", "host memory", "disk", "time"):
        table.add_column(heading, justify="right")
    for kind, total in totals_by_kind(planned).items():
        table.add_row(
            kind,
            f"{total['build']:.0f}",
            _cost(total["device_memory"]),
            _cost(total["memory"]),
            _cost(total["bytes"]),
            f"{total['seconds']:.1f} s",
        )
    return table


def between(expected: Forecast) -> str:
    """One sentence on the results that pass from node to node and are not stored."""
    beyond = f"{size(expected.spilled)} on the disk" if expected.spilled else "none on the disk"
    copies = f"{size(expected.copied)} of copies to resume from" if expected.copied else "no copies"
    on_device = ""
    if expected.device_limit:
        allowed = size(expected.device_limit)
        on_device = f"{size(expected.on_device)} stay on the GPU, of {allowed}, and "
    return (
        f"Between nodes: at most {on_device}{size(expected.in_memory)} stay in memory, of "
        f"{size(expected.limit)} that calibrate.memory allows; {beyond}; {copies}."
    )


def print_difference(changes: Difference, last: Run, console: Console) -> None:
    """Print the differences to the last such run."""
    name = nearby(last.folder)
    console.print(f"\nAgainst the last such run, {name} ({last.status}):", markup=False)
    if not changes.keys:
        console.print("  the config is the same")
    else:
        table = Table("key", "then", "now", box=None, header_style="bold")
        for key, (then, now) in changes.keys.items():
            table.add_row(key, masked(str(then)), masked(str(now)))
        console.print(table)
    table = Table("nodes", box=None, header_style="bold")
    for heading in ("same", "other", "new", "gone"):
        table.add_column(heading, justify="right")
    for site, counts in changes.sites.items():
        if sum(counts.values()) != counts["same"]:
            table.add_row(site, *(str(counts[name] or "") for name in counts))
    console.print(table if table.rows else "  every node is the same", highlight=False)


def _cost(count: float) -> str:
    return size(count) if count else ""
