"""`mode=plan`: print the expanded graph with cost estimates, without loading any weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from pipeline.config.root import Config
from pipeline.errors import UserError
from pipeline.import_ahead import unsearched
from pipeline.machine.devices import unusable
from pipeline.machine.gpus import gpu_of
from pipeline.masking import masked
from pipeline.messages import together
from pipeline.planning.elsewhere import elsewhere_note
from pipeline.planning.expand import expand, never
from pipeline.planning.plan import Plan, make_plan, plan_rows, steps_by_site, totals, totals_by_kind
from pipeline.report.units import counted, duration, nearby, size
from pipeline.runner.for_others import others_note
from pipeline.runner.forecast import Forecast, forecast
from pipeline.runner.preflight import check_device, check_room
from pipeline.runner.schedule import Transient, passing_keys, transient_outputs
from pipeline.runs.diff import Difference, difference, last_alike, summarized
from pipeline.runs.folders import Run, known_runs
from pipeline.scheduling.machine import MachineConfig, measured, speeds_name
from pipeline.scheduling.show import print_schedules
from pipeline.store import Store
from pipeline.store.processors import noted_processors

_STATUS = {"hit": "cached", "build": "to run", "idle": "not needed"}

MOST_KEYS = 5
"""Keys that differ from an earlier run, as many as are shown."""
LONGEST = 150
"""Characters of a sentence on nodes that differ."""


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
    transient = transient_outputs(expanded.graph, keep=config.store.keep_activations)
    graph = make_plan(
        expanded.graph,
        lambda key: store.get(key) is not None,
        config.others - passing_keys(expanded.graph, transient),
    )
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
        notes=(*expanded.notes, *elsewhere, *others_note(graph, transient)),
    )


def plan(config: Config, run_dir: Path) -> int:
    """Print the steps with their status and estimates; exit code 0 if the config is valid."""
    del run_dir
    with unsearched():  # the first plan of a model imports what draws its blueprint
        found = planned_for(config)
    planned, expected = found.graph, found.expected
    console = Console(highlight=False)
    if config.plan.every_node:
        console.print(_every_node(planned, expected))
    elif not expected.device_memory:
        _print_steps(planned, expected, console)
    for text in together(found.warnings):
        console.print(f"warning: {text}", markup=False)
    for text in dict.fromkeys(found.notes):
        console.print(f"note: {text}", markup=False)
    away = config.device != "cpu" and unusable(config.device)
    if away:
        console.print(
            f"note: device={config.device}, but {away}: times are those of an H200, and keys will "
            "be others where the model of the GPU is known",
            markup=False,
        )
    if expected.held:
        console.print(between(expected))
    if expected.device_memory:
        console.print(by_kind(planned))
    _print_totals(found, console, "such a" if away else "this")
    if config.plan.workers:
        machine = machine_of(config, found.store)
        counts = config.plan.workers
        print_schedules(planned, found.transient, expected, machine, counts, console)
    else:
        check_device(planned, config.device, found.transient)
    last = last_alike(known_runs(config.runs, found.store.layout), config.resolved)
    if last is not None:
        changes = difference(last.folder, config.resolved, plan_rows(planned))
        print_difference(changes, last, console)
    return 0


def machine_of(config: Config, store: Store) -> MachineConfig:
    """The machine of a schedule: what the config gives, else what was measured here, if it was."""
    given = config.plan.machine
    if given.rates:
        return given
    found = measured(store.root, speeds_name(config.device, config.numerics.threads))
    return given if found is None else replace(found, network=given.network)


def _print_totals(found: Planned, console: Console, machine: str) -> None:
    """Print what the run will take, and a warning where this machine cannot give it."""
    planned, expected, free = found.graph, found.expected, found.store.free_bytes()
    try:
        check_room(planned, found.transient, free, str(found.store.root))
    except UserError as error:
        console.print(f"warning: {error}", markup=False)
    total = totals(planned)
    written = sum(expected.written[step.node.name] for step in planned.building())
    on_device = f"{size(expected.device_memory)} of the GPU, " if expected.device_memory else ""
    if not total["build"]:
        console.print(f"0 nodes to run, {total['reused']:.0f} cached: all is there already.")
        return
    console.print(
        f"{counted(int(total['build']), 'node')} to run, {total['reused']:.0f} cached. Estimates: "
        f"{size(written + expected.copied)} written, "
        f"{size(written + expected.copied + expected.spilled)} of disk at most "
        f"({size(free)} free), "
        f"{size(expected.memory + expected.storing)} peak memory, "
        f"{on_device}{about(total['seconds'])} on {machine} machine.",
    )


def _print_steps(planned: Plan, expected: Forecast, console: Console) -> None:
    """One row for each site that has work or results, and one line for the others."""
    needed, idle = steps_by_site(planned)
    table = Table("step", box=None, header_style="bold")
    table.columns[0].overflow = "fold"
    for heading in ("to run", "cached", "writes", "memory", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for site in needed:
        costs = [step.node.estimate for step in site.building]
        table.add_row(
            escape(site.name),
            str(len(costs) or ""),
            str(site.stored or ""),
            _cost(sum(expected.written[step.node.name] for step in site.building)),
            _cost(max((cost.memory for cost in costs), default=0)),
            about(sum(cost.seconds for cost in costs)) if costs else "",
        )
    console.print(table)
    if idle:
        console.print(f"Not needed: {', '.join(idle)}.", markup=False)


def _every_node(planned: Plan, expected: Forecast) -> Table:
    """One row for each node, with its key."""
    table = Table("node", "kind", "status", "key", box=None, header_style="bold")
    table.columns[0].no_wrap = True
    table.columns[0].min_width = max(len(row["name"]) for row in plan_rows(planned))
    for heading in ("writes", "memory", "time"):
        table.add_column(heading, justify="right")
    for row in plan_rows(planned):
        cost = row["estimate"]
        table.add_row(
            escape(row["name"]),
            row["kind"],
            _STATUS[row["status"]],
            next(iter(row["keys"].values()))[:12],
            _cost(expected.written[row["name"]]),
            _cost(cost["memory"]),
            about(cost["seconds"]) if cost["seconds"] else "",
        )
    return table


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
            about(total["seconds"]),
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
    """Print the differences to the last such run, in ten lines at most."""
    name = nearby(last.folder)
    console.print(f"\nAgainst the last such run, {name} ({last.status}):", markup=False)
    keys = summarized(changes.keys)
    if not keys:
        console.print("  the config is the same")
    else:
        table = Table("key", "then", "now", box=None, header_style="bold")
        shown = list(keys.items())[:MOST_KEYS]
        for key, values in shown:
            table.add_row(*map(_cell, (key, *values)))
        console.print(table)
        if len(keys) > len(shown):
            console.print(f"  and {len(keys) - len(shown)} more")
    other = {
        what: [f"{site} {counts[what]}" for site, counts in changes.sites.items() if counts[what]]
        for what in ("other", "new", "gone")
    }
    told = "; ".join(f"{what}: {', '.join(sites)}" for what, sites in other.items() if sites)
    text = f"  nodes that are {told}" if told else "  every node is the same"
    console.print(Text(text if len(text) <= LONGEST else f"{text[:LONGEST]} ..."))


def _cell(value: Any) -> Text:
    text = "null" if value is None else masked(str(value))
    return Text(text, overflow="ellipsis", no_wrap=True)


def about(seconds: float) -> str:
    """An estimated time, in whole units: 0.4 -> '0.4 s', 12.3 -> '12 s', 75 -> '1 min 15 s'."""
    if seconds >= 59.5:
        return duration(seconds)
    return f"{seconds:.1f} s" if seconds < 1 else f"{seconds:.0f} s"


def _cost(count: float) -> str:
    return size(count) if count else ""
