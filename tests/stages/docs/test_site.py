"""The documentation as a site: a strict build, links of the home page, API of docstrings, search.

The build needs the extra `docs` (.ci/docs); what the hooks do to Markdown is tested without it.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import pipeline
from tests.stages.docs.pages import DOCS

SITE = DOCS / "site"
ROOT = DOCS.parents[1]


@pytest.fixture(scope="module")
def hooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("site_hooks", SITE / "hooks.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], Path]:
    """Builds the site of a `site` folder strictly, and gives the folder that it is in."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    def built(source: Path) -> Path:
        target = tmp_path_factory.mktemp("site")
        config = load_config(str(source / "mkdocs.yml"), strict=True, site_dir=str(target))
        config.plugins.on_startup(command="build", dirty=False)
        try:
            build(config)
        finally:
            config.plugins.on_shutdown()
        return target

    return built


@pytest.fixture(scope="module")
def site(build: Callable[[Path], Path]) -> Path:
    return build(SITE)


def pages(nav: list[Any]) -> list[str]:
    """The files of a `nav`, sections within sections."""
    found: list[str] = []
    for entry in nav:
        (value,) = entry.values()
        found += [value] if isinstance(value, str) else pages(value)
    return found


def test_every_page_is_in_the_navigation_once() -> None:
    nav = pages(yaml.safe_load((SITE / "mkdocs.yml").read_text())["nav"])
    there = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    there = {name for name in there if not name.startswith("site/")}
    assert sorted(nav) == sorted(there | {"index.md", "api.md"})


def test_the_api_page_has_every_public_name() -> None:
    shown = re.findall(r"^::: (\S+)$", (SITE / "api.md").read_text(), re.MULTILINE)
    assert {name.rpartition(".")[2] for name in shown} >= set(pipeline.__all__)


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        ("[a](stages/docs/options.md)", "[a](options.md)"),
        ("[a](stages/docs/loaders.md#versions)", "[a](loaders.md#versions)"),
        ("[a](https://x.org/stages/docs/y.md)", "[a](https://x.org/stages/docs/y.md)"),
        ("[a](#measured)", "[a](#measured)"),
        ("[a](pyproject.toml)", "[a](pyproject.toml)"),
    ],
)
def test_links_of_the_readme_are_those_of_the_docs_folder(
    hooks: ModuleType, written: str, becomes: str
) -> None:
    assert hooks.home_page(written) == becomes


@pytest.mark.parametrize(
    ("written", "becomes"),
    [
        ("[a](../../README.md#measured)", "[a](index.md#measured)"),
        ("[a](../../../README.md)", "[a](../index.md)"),
        ("[a](README.md)", "[a](README.md)"),
        ("```yaml acme/conf/x.yaml\na: 1\n```", '```yaml title="acme/conf/x.yaml"\na: 1\n```'),
        ("```sh\npresswork a=b\n```", "```sh\npresswork a=b\n```"),
    ],
)
def test_markdown_of_a_repository_becomes_that_of_the_site(
    hooks: ModuleType, written: str, becomes: str
) -> None:
    assert hooks.on_page_markdown(written) == becomes


def test_the_site_is_built_with_every_page_and_links_to_pages_of_it(site: Path) -> None:
    for name in pages(yaml.safe_load((SITE / "mkdocs.yml").read_text())["nav"]):
        page = site / re.sub(r"(README|index)\.md$", "index.html", name).replace(".md", ".html")
        text = page.read_text(encoding="utf-8")
        assert "<h1" in text
        for link in re.findall(r'(?:href|src)="([^"#?]+)', text):
            assert "://" in link or link.startswith("data:") or (page.parent / link).exists(), link
        fetched = re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="https?://[^"]+', text)
        assert fetched == [], "a page of the site is whole without a network"
    assert [path.name for path in (site / "site").iterdir()] == ["site.css"], "no sources"


def test_the_api_is_that_of_the_docstrings(site: Path) -> None:
    text = re.sub(r"<[^>]+>", "", (site / "api.html").read_text(encoding="utf-8"))
    for name in inspect.signature(pipeline.compress).parameters:
        assert name in text
    assert "Run a job as python -m pipeline does" in text
    assert ":class:" not in text and ":func:" not in text


def test_the_search_finds_pages_by_their_text(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    found = {entry["location"].partition("#")[0] for entry in index["docs"]}
    assert {"index.html", "api.html", "choosing.html", "extend/team.html"} <= found
    api = [entry for entry in index["docs"] if entry["location"].startswith("api.html")]
    assert any("keep_inputs" in entry["text"] for entry in api)


def test_links_that_lead_nowhere_fail_the_build(
    build: Callable[[Path], Path], tmp_path: Path
) -> None:
    from mkdocs.exceptions import Abort

    docs = tmp_path / "stages" / "docs"
    shutil.copytree(DOCS, docs)
    shutil.copy(ROOT / "README.md", tmp_path)
    (tmp_path / "pipeline").symlink_to(ROOT / "pipeline")
    with (docs / "limits.md").open("a") as page:
        page.write("\n[a](nowhere.md) [b](options.md#nowhere) [c](../x.py)\n")
    with pytest.raises(Abort, match="3 warnings in strict mode"):
        build(docs / "site")
