"""Plan of a call as a value: what would run, what is stored, and what it would take."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pipeline.modes.plan import Planned, about
from pipeline.planning.plan import plan_rows, totals
from pipeline.report.units import size


@dataclass(frozen=True, kw_only=True, slots=True)
class Outlook:
    """What a call would do. Bytes and seconds are estimates.

    `nodes` are the rows of plan.json: name, kind, status (hit, build, idle), keys, estimate.
    """

    nodes: tuple[Mapping[str, Any], ...] = field(repr=False)
    to_run: int
    stored: int
    written_bytes: int
    memory_bytes: int
    device_memory_bytes: int
    seconds: float
    warnings: tuple[str, ...]
    notes: tuple[str, ...]

    def _repr_html_(self) -> str:
        """A short table, for notebooks."""
        rows = {
            "nodes to run": self.to_run,
            "stored already": self.stored,
            "written": size(self.written_bytes),
            "peak memory": size(self.memory_bytes),
            "GPU memory": size(self.device_memory_bytes),
            "time": about(self.seconds),
            **{f"warning {i}": text for i, text in enumerate(self.warnings, start=1)},
            **{f"note {i}": text for i, text in enumerate(self.notes, start=1)},
        }
        cells = (f"<tr><th>{k}</th><td>{html.escape(str(v))}</td></tr>" for k, v in rows.items())
        return f"<table>{''.join(cells)}</table>"


def outlook(planned: Planned) -> Outlook:
    """The outlook on a planned graph."""
    graph, expected = planned.graph, planned.expected
    total = totals(graph)
    written = sum(expected.written[step.node.name] for step in graph.building())
    return Outlook(
        nodes=tuple(plan_rows(graph)),
        to_run=int(total["build"]),
        stored=int(total["reused"]),
        written_bytes=int(written + expected.copied),
        memory_bytes=int(expected.memory + expected.storing),
        device_memory_bytes=int(expected.device_memory),
        seconds=float(total["seconds"]),
        warnings=planned.warnings,
        notes=planned.notes,
    )
