"""Every scheme with rtn, gptq and smoothquant+gptq on a GPU, against the same job on the CPU.

All jobs run in one process on a small random llama and share one store. A job is right if the run
passes its verification and the relative output error of every module is that of the CPU within 2 %.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.errors import UserError
from pipeline.modes.run import run
from pipeline.registry import Registry
from tests.benchmarks.memory import text_of_bytes
from tests.benchmarks.random_llama import Shape, write_model
from tests.pipeline.tiny import composed

SMALL = Shape(layers=2, hidden=256, intermediate=512, heads=4, kv_heads=2, vocab=320)
MODIFIERS = ("[rtn]", "[gptq]", "[smoothquant,gptq]")
NOT_ROUNDED = ("none", "unquantized")
MOST = 0.02
CRASHES = (
    UserError,
    RuntimeError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    KeyError,
)
"""What a job may end with; the others run all the same."""

Errors = Mapping[str, float | None]
"""Module -> its relative output error."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """One job: how far its errors are from the CPU's, what went wrong, seconds on the GPU."""

    job: str
    worst: float | None = None
    module: str = ""
    problem: str = ""
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.problem and self.worst is not None and self.worst <= MOST


@dataclass(slots=True)
class Schemes:
    """Jobs below `work`; `reference` holds the CPU's errors by job, those of a file among them."""

    work: Path
    device: str
    more: tuple[str, ...] = ()
    reference: dict[str, Errors] = field(default_factory=dict)

    def prepare(self) -> None:
        """Write the model and the text, unless they are here."""
        if not (self.work / "model" / "config.json").is_file():
            write_model(self.work / "model", SMALL)
        text_of_bytes(self.work / "text.txt", 20_000)

    def row(self, job: str) -> Row:
        """Run a job on the device, and on the CPU unless that is known."""
        began = time.perf_counter()
        try:
            found = self.errors(job, self.device)
            seconds = time.perf_counter() - began
            if job not in self.reference:
                self.reference[job] = self.errors(job, "cpu")
        except CRASHES as error:
            return Row(job=job, problem=f"{type(error).__name__}: {error}".splitlines()[0][:150])
        worst, module = farthest(found, self.reference[job])
        return Row(job=job, worst=worst, module=module, seconds=seconds)

    def errors(self, job: str, device: str) -> Errors:
        """Errors by module; UserError where the run or its verification fails."""
        scheme, _, modifier = job.partition(" ")
        words = [
            f"device={device}",
            f"store.dir={self.work / 'store'}",
            "model=local",
            f"model.path={self.work / 'model'}",
            "dataset=text",
            f"dataset.path={self.work / 'text.txt'}",
            "dataset.num_samples=8",
            "dataset.sequence_length=128",
            "calibrate.propagate=original",
            "eval=none",
            f"scheme={scheme}",
            *([f"modifier={modifier}"] if modifier else []),
            *self.more,
        ]
        target = self.work / "runs" / device / job.replace(" ", "-")
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir(parents=True)
        cfg = composed(own_configs(), *words, name="config")
        run(load_config(cfg, Registry.load(), overrides=words), target)
        result: dict[str, Any] = json.loads((target / "result.json").read_text(encoding="utf-8"))
        if not result["verify"]["ok"]:
            raise UserError("verification failed")
        return {row["name"]: row["relative_error"] for row in result["layers"]}


def jobs(schemes: Sequence[str] = ()) -> Iterator[str]:
    """ "SCHEME MODIFIERS" of these schemes, or of all that round."""
    names = sorted(path.stem for path in (own_configs() / "scheme").glob("*.yaml"))
    for name in schemes or [name for name in names if name not in NOT_ROUNDED]:
        # the scheme that chooses formats has no transforms before the choice
        yield from [name] if name == "auto" else [f"{name} {chosen}" for chosen in MODIFIERS]


def farthest(found: Errors, reference: Errors) -> tuple[float, str]:
    """The largest relative difference of a module's error, and the module; inf where one lacks."""
    if found.keys() != reference.keys():
        return float("inf"), next(iter(found.keys() ^ reference.keys()))
    pairs = [(difference(error, reference[name]), name) for name, error in found.items()]
    return max(pairs, default=(float("inf"), "no module"))


def difference(found: float | None, reference: float | None) -> float:
    """Relative to the reference; 0 for two that are not known, or equal."""
    if found == reference:
        return 0.0
    if found is None or not reference:
        return float("inf")
    return abs(found / reference - 1)


def measure(
    work: Path,
    *,
    device: str,
    seconds: float,
    reference: Path | None = None,
    schemes: Sequence[str] = (),
    more: tuple[str, ...] = (),
) -> list[Row]:
    """A row for every job that was begun within `seconds`; the others get one that says so.

    The file `reference` is read for the CPU's errors, if it is there, and written with all of them.
    """
    known = json.loads(reference.read_text()) if reference and reference.is_file() else {}
    bench = Schemes(work=work, device=device, more=more, reference=known)
    bench.prepare()
    began, rows = time.perf_counter(), []
    for job in jobs(schemes):
        if time.perf_counter() - began > seconds:
            rows.append(Row(job=job, problem="not run: no time left"))
            continue
        rows.append(bench.row(job))
        sys.stderr.write(f"{line(rows[-1])}\n")
    if reference is not None:
        reference.write_text(json.dumps(bench.reference, indent=1) + "\n", encoding="utf-8")
    return rows


def line(row: Row) -> str:
    """One row of the table."""
    told = row.problem or f"{100 * (row.worst or 0.0):7.3f} %  {row.module}"
    return f"{'ok' if row.ok else 'NOT'!s:4}{row.job:34}{row.seconds:6.1f} s  {told}"


def table(rows: Sequence[Row]) -> str:
    """All rows, those that are not right last, and how many are."""
    ordered = sorted(rows, key=lambda row: not row.ok)
    right = sum(row.ok for row in rows)
    return "\n".join([*map(line, ordered), f"{right} of {len(rows)} jobs are right"])
