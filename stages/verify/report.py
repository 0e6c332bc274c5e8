"""The report section of the checks that a written checkpoint passed or failed.

It shows `verify` of result.json: {ok, checks: [{name, ok, detail}]}; ok is null for a check that
could not be done here. `engines` says of each engine by name which version was asked and whether it
loads the checkpoint: {version, loads, checked (by loading it, or by a table), why: [..]}.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup
from rich.console import RenderableType

from pipeline.report.html import fragment
from pipeline.report.section import Result, Section


def checks(result: Result) -> Sequence[Mapping[str, Any]]:
    """The checks of a run: name, ok (None: could not be done here), detail."""
    found: Sequence[Mapping[str, Any]] = result["verify"].get("checks", ())
    return found


def note_skipped(result: dict[str, Any]) -> None:
    """List the checks that could not be done here in `not_checked`."""
    skipped = (check for check in checks(result) if check.get("ok") is None)
    result["not_checked"] += [f"{c['name']}: {c.get('detail', '')}" for c in skipped]


def alerts(result: Result) -> list[tuple[str, str]]:
    """The checks that failed."""
    return [
        ("failed check", f"{check['name']}: {check.get('detail', '')}")
        for check in checks(result)
        if check.get("ok") is False
    ]


def summary(result: Result) -> list[RenderableType]:
    """The number of checks that passed, for the terminal."""
    passed = sum(check.get("ok") is True for check in checks(result))
    ran = sum(check.get("ok") is not None for check in checks(result))
    return [f"checks      {passed} of {ran} passed"] if checks(result) else []


def verdict(result: Result, config: Mapping[str, Any]) -> list[str]:
    """Whether the checkpoint passed its checks."""
    del config
    ran = [check for check in checks(result) if check.get("ok") is not None]
    failed = sum(check["ok"] is False for check in ran)
    if not ran:
        return ["nothing checked what was written"] if result.get("size") else []
    return [f"{failed} of {len(ran)} checks failed" if failed else f"all {len(ran)} checks passed"]


def page(result: Result) -> Markup:
    """The list of checks with their verdicts."""
    shown = result["verify"].get("checks")
    return fragment(Path(__file__).parent, "checks.html", checks=shown)


CHECKS = Section(
    order=800,
    mappings=("verify", "engines"),
    finish=note_skipped,
    alerts=alerts,
    verdict=verdict,
    summary=summary,
    page=page,
)
