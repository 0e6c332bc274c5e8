"""Plugins written before modules moved find everything, and are told where it is now."""

from __future__ import annotations

import importlib
import re
import runpy
from pathlib import Path

import pytest

from tests.stages.docs.pages import DOCS

FORMER = {
    "pipeline.config.recipe_import": "pipeline.recipe",
    "stages.compress.layer.state": "stages.compress.state",
    "stages.compress.observers.mse": "stages.compress.observers.searched",
    "stages.compress.observers.qparams": "stages.compress.observers.ranges",
    "stages.load.model_kind": "stages.load.source",
    "stages.tokens.dataset_files": "stages.tokens.files",
}
IMPORT = re.compile(r"^ *from (?P<module>[\w.]+) import (?P<names>[\w, ]+)$", re.MULTILINE)
MOVED = [
    (name, match["module"], each.strip())
    for name in sorted(path.stem for path in (DOCS / "extend").glob("*.md"))
    for match in IMPORT.finditer((DOCS / "extend" / f"{name}.md").read_text())
    for each in match["names"].split(",")
    if match["module"] in FORMER
]


@pytest.mark.parametrize(("name", "module", "imported"), MOVED)
def test_what_a_page_imports_is_found_at_its_former_place_with_a_warning(
    name: str, module: str, imported: str
) -> None:
    del name
    with pytest.warns(FutureWarning, match=f"has moved to {re.escape(module)}"):
        value = getattr(importlib.import_module(FORMER[module]), imported)
    assert value is getattr(importlib.import_module(module), imported)


def test_a_module_can_be_imported_as_one_from_its_former_place() -> None:
    from stages.compress.observers import mse, searched

    with pytest.warns(FutureWarning, match=r"import imatrix from there \(the old place goes"):
        assert searched.imatrix is mse.imatrix


def test_a_name_that_never_was_there_is_an_import_error(tmp_path: Path) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text("from pipeline.recipe import nope\n")
    with pytest.raises(ImportError, match=r"cannot import name 'nope' from 'pipeline\.recipe'"):
        runpy.run_path(str(plugin))
