"""Check of a checkpoint of any origin, as `mode=verify checkpoint=DIR` makes it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pipeline.registry import Registry


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One check: `ok` is None where it was not made, and `detail` says what was found."""

    name: str
    ok: bool | None
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """All checks of a checkpoint; `ok` if none failed."""

    checkpoint: Path
    ok: bool
    checks: tuple[Check, ...]


def verify(checkpoint: str | Path) -> Verification:
    """Check a checkpoint's files by themselves. What is wrong stands in the checks.

    Raises UserError if there is no such folder.
    """
    path = Path(checkpoint).expanduser().absolute()
    found = Registry.load().get("inspector", "checkpoint")(path, lambda done, what: None)
    checks = tuple(
        Check(name=check["name"], ok=check["ok"], detail=check["detail"])
        for check in found["checks"]
    )
    return Verification(checkpoint=path, ok=bool(found["ok"]), checks=checks)
