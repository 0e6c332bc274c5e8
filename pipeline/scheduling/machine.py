"""Speeds of a machine, by which the work that nodes count becomes seconds there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from pipeline.errors import UserError
from pipeline.machine.gpus import gpu_of
from pipeline.machine.processor import brief, processor
from pipeline.report.units import counted
from pipeline.stage import Estimate

FILE = "speeds.json"
"""Of the store: what `mode=measure` measured on this machine."""
NETWORK = 1.25e9
"""Bytes a second between workers, where nothing says it: 10 Gbit/s. An assumption."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MachineConfig:
    """Speeds and memory of one worker, for the schedules of `mode=plan`.

    Without rates: those that `mode=measure` found here, else the estimates' own seconds.
    """

    name: str = ""
    """What the figures are of, for the plan to say."""
    rates: dict[str, float] = field(default_factory=dict)
    """Kind of work -> how much of it a second (.inf: it takes no time there)."""
    read: float | None = field(default=None, metadata={"unit": "bytes"})
    """Bytes a second that a worker reads from files."""
    network: float = field(default=NETWORK, metadata={"unit": "bytes"})
    """Bytes a second that a worker receives from others."""
    memory: int | None = field(default=None, metadata={"unit": "bytes"})
    """Host memory of a worker; null: not known."""
    device_memory: int | None = field(default=None, metadata={"unit": "bytes"})
    """Memory of its device; null: not known, or it has none."""

    def __post_init__(self) -> None:
        given = {f"rates.{kind}": rate for kind, rate in self.rates.items()}
        given |= {"network": self.network, **({} if self.read is None else {"read": self.read})}
        for name, rate in given.items():
            if not rate > 0:
                raise UserError(f"{name} is {rate}", remedy="give more than 0 a second")

    def seconds(self, cost: Estimate) -> float:
        """How long a node of this cost takes here, beside moving its inputs between workers.

        By its work, where the rates of all kinds of it are known; else what the stage estimated.
        """
        if not cost.work or not self.rates.keys() >= cost.work.keys():
            return cost.seconds
        reading = 0.0 if self.read is None else cost.reads / self.read
        return reading + sum(amount / self.rates[kind] for kind, amount in cost.work.items())

    def write(self, folder: Path) -> Path:
        """Write it where :func:`measured` finds it."""
        path = folder / FILE
        partial = path.with_suffix(".part")
        partial.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return partial.replace(path)


def measured(folder: Path, name: str) -> MachineConfig | None:
    """The speeds that were measured into a store for what `name` says; None: none were."""
    try:
        found = json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    fits = isinstance(found, Mapping) and found.get("name") == name
    return MachineConfig(**found) if fits else None


def speeds_name(device: str, threads: int) -> str:
    """What speeds are of: this machine's processor or GPU, with so many threads an operation."""
    gpu = gpu_of(device)
    if gpu is not None:
        return gpu.name
    return f"{brief(processor())}, {counted(threads, 'thread')} an operation"
