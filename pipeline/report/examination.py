"""Examinations of folders: what a stage finds in them, as JSON, terminal tables and a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress

from pipeline.masking import printable
from pipeline.registry import Registry
from pipeline.report.text_files import write_text

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pipeline.config.root import Config

Content = Mapping[str, Any]
"""What an examination found: plain data, as it is written to its JSON file."""

Told = Callable[[float, str], None]
"""Receives how much is done, from 0 to 1, and what is being looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Examination:
    """What `mode=inspect` or `mode=diff` does with the folders that it is given.

    `examine` reads them; `tables` is what the terminal prints of its content, `page` the HTML page.
    Raises UserError for a folder that cannot be read at all.
    """

    examine: Callable[[Sequence[Path], Config, Told], dict[str, Any]]
    tables: Callable[[Content], Sequence[RenderableType]]
    page: Callable[[Content], str]


def examined(config: Config, run_dir: Path) -> dict[str, Any]:
    """Examine the config's folders as its mode says; what was found.

    Leaves MODE.json and MODE.html in `run_dir`, and prints the tables.
    """
    examination: Examination = Registry.load().get("examination", config.mode)
    console = Console(highlight=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("reading", total=1.0)

        def told(done: float, what: str) -> None:
            progress.update(task, completed=done, description=escape(printable(what)))

        content = examination.examine(config.checkpoints, config, told)
    page = run_dir / f"{config.mode}.html"
    write_text(run_dir / f"{config.mode}.json", json.dumps(content, indent=1) + "\n")
    write_text(page, examination.page(content))
    for each in examination.tables(content):
        console.print(each)
    console.print(f"page  {escape(str(page))}", soft_wrap=True)
    return content
