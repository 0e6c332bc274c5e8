"""Result of a run as a typed value, from its folder's result.json."""

from __future__ import annotations

import html
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.report.files import REPORT, read_result
from pipeline.report.record import RunStatus

_PAGE = (
    '<iframe title="presswork report" sandbox style="width:100%;height:640px;border:0" '
    'srcdoc="{page}"></iframe>'
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Result:
    """What a run came to. `fields` is all of result.json (`pipeline.report.result`).

    Its parts are attributes as well, those that stages report among them: `result.nodes`,
    `result.versions`, `result.size` and so on, as plain data. `checkpoint` is None where none was
    published.
    """

    folder: Path
    status: RunStatus
    checkpoint: Path | None
    seconds: float
    built: int
    reused: int
    warnings: tuple[str, ...]
    fields: Mapping[str, Any]

    @property
    def report(self) -> Path:
        """The page of the run, one file."""
        return self.folder / REPORT

    def __getattr__(self, name: str) -> Any:
        if name == "fields" or name.startswith("_"):  # of one that is only being made, as by copy
            raise AttributeError(name)
        shown = [*self.fields]
        if name in shown:
            return self.fields[name]
        raise AttributeError(f"a result has no {name!r}; it has {', '.join(shown)}")

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self.fields})

    def __repr__(self) -> str:
        return f"Result({self.status}, {self.folder}, {self.built} built, {self.reused} reused)"

    def _repr_html_(self) -> str:
        """The report, for notebooks: shut off from the notebook's own page."""
        if not self.report.is_file():
            return f"<pre>{html.escape(repr(self))}</pre>"
        return _PAGE.format(page=html.escape(self.report.read_text(encoding="utf-8")))


def load_result(folder: str | Path) -> Result:
    """The result of a run folder. Raises UserError if it has none that this version reads."""
    path = Path(folder).expanduser().absolute()
    fields = read_result(path)
    nodes = fields.get("nodes", [])
    reused = sum(node.get("status") == "hit" for node in nodes)
    checkpoint = fields.get("checkpoint")
    return Result(
        folder=path,
        status=fields["status"],
        checkpoint=Path(checkpoint) if checkpoint else None,
        seconds=float(fields.get("seconds") or 0.0),
        built=len(nodes) - reused,
        reused=reused,
        warnings=tuple(fields.get("warnings", ())),
        fields=fields,
    )
