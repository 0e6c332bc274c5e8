"""`mode=measure`: measure the speeds of this machine, for the schedules of `mode=plan`."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.config.root import Config
from pipeline.registry import Registry
from pipeline.scheduling.machine import MachineConfig, speeds_name
from pipeline.scheduling.reading import read_speed
from pipeline.store import Store


def measure(config: Config, run_dir: Path) -> int:
    """Measure, print and keep in the store how much of each kind of work a second takes here.

    What there is to measure, stages say (`pipeline.stage.Stage.speeds`). The exit code is 0.
    """
    del run_dir
    device, threads, registry = config.device, config.numerics.threads, Registry.load()
    stages = [registry.get("stage", kind) for kind in registry.kinds("stage")]
    rates: dict[str, float] = {}
    for module in dict.fromkeys(stage.speeds for stage in stages if stage.speeds):
        rates |= import_module(module).speeds(device, threads)
    store = Store(config.store)
    store.check_writable()
    found = MachineConfig(
        name=speeds_name(device, threads),
        rates=rates,
        read=read_speed(store.root),
        network=config.plan.machine.network,
    )
    path = found.write(store.root)
    console = Console(highlight=False)
    console.print(f"{found.name}:", markup=False)
    table = Table("work", box=None, header_style="bold")
    table.add_column("a second", justify="right")
    for kind, rate in (*rates.items(), ("bytes read", found.read or 0.0)):
        table.add_row(kind, f"{rate:.3g}")
    console.print(table)
    console.print(f"kept in {path}: mode=plan plan.workers=[8,64] takes them", markup=False)
    return 0
