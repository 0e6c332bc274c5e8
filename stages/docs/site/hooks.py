"""Hooks of mkdocs: README.md as the site's home page, the API page, and titles of code blocks.

mkdocs calls the functions named `on_...` (https://www.mkdocs.org/dev-guide/plugins/#events).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

HERE = Path(__file__).resolve().parent
DOCS = HERE.parent
ROOT = DOCS.parents[1]
LINK = re.compile(r"(?<=\]\()(?!\w+:)(?P<target>[^)#\s]+)")
FENCE = re.compile(r"^```(?P<language>\w+) (?P<title>[^\s=]+)$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are no files of the docs folder: home and API."""
    from mkdocs.structure.files import File

    home = home_page((ROOT / "README.md").read_text(encoding="utf-8"))
    api = (HERE / "api.md").read_text(encoding="utf-8")
    for name, content in (("index.md", home), ("api.md", api)):
        files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Make a page's Markdown, which is GitHub's, that of the site."""
    return titled(linked_home(markdown))


def on_post_page(output: str, **_: Any) -> str:
    """Name the search, a dialog that the theme leaves without a name for screen readers."""
    return output.replace('role="dialog"', 'role="dialog" aria-label="Search"')


def home_page(readme: str) -> str:
    """The README with its links as from the docs folder: `stages/docs/x.md` becomes `x.md`.

    A link to a file elsewhere in the repository stays as it is, and fails a strict build.
    """
    folder = DOCS.relative_to(ROOT).as_posix() + "/"
    return LINK.sub(lambda found: found["target"].removeprefix(folder), readme)


def linked_home(markdown: str) -> str:
    """Links to README.md of the repository's top as links to the home page."""
    return LINK.sub(
        lambda found: re.sub(r"^(?:\.\./)+README\.md$", _home, found["target"]), markdown
    )


def titled(markdown: str) -> str:
    """Code blocks that name their file: ```` ```yaml a/b.yaml ```` becomes one with a title."""
    return FENCE.sub(r'```\g<language> title="\g<title>"', markdown)


def _home(found: re.Match[str]) -> str:
    # from stages/docs two folders up, from a folder below it one more
    return "../" * (found[0].count("../") - 2) + "index.md"
