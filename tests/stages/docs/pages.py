"""The files that a page of the documentation shows, installed as pip would leave them."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import stages
from tests.pipeline.tiny import write_files

DOCS = Path(stages.__file__).parent / "docs"
FILE = re.compile(r"^```\w+ (?P<name>\S+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"^```sh\npython -m pipeline (?P<words>.*?)\n", re.MULTILINE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """`files` by path; `words` are those of the page's first command."""

    files: dict[str, str]
    words: list[str]

    @property
    def modules(self) -> list[str]:
        return [name.removesuffix(".py") for name in self.files if name.endswith(".py")]

    def former(self, places: Mapping[str, str]) -> Page:
        """The page as it was when modules lay at other places: new place -> former place."""
        files = dict(self.files)
        for new, old in places.items():
            files = {
                name: text.replace(f"from {new} ", f"from {old} ") for name, text in files.items()
            }
        return replace(self, files=files)

    def install(self, folder: Path) -> tuple[Path, Path]:
        """Write a distribution and its configs; the folders for sys.path and PRESSWORK_CONF."""
        project = tomllib.loads(self.files["pyproject.toml"])["project"]
        lines = [
            line
            for group, names in project["entry-points"].items()
            for line in (f"[{group}]", *(f"{name} = {value}" for name, value in names.items()))
        ]
        site = {name: text for name, text in self.files.items() if name.endswith(".py")}
        site["acme-1.0.dist-info/METADATA"] = "Metadata-Version: 2.1\nName: acme\nVersion: 1.0\n"
        site["acme-1.0.dist-info/entry_points.txt"] = "\n".join(lines) + "\n"
        write_files(folder, {name: text for name, text in self.files.items() if name not in site})
        (folder / "conf").mkdir(exist_ok=True)
        return write_files(folder / "site", site), folder / "conf"


def page(name: str) -> Page:
    text = (DOCS / "extend" / f"{name}.md").read_text(encoding="utf-8")
    command = COMMAND.search(text)
    assert command is not None, f"{name} shows no command"
    return Page(
        files={match["name"]: match["text"] for match in FILE.finditer(text)},
        words=shlex.split(command["words"]),
    )
