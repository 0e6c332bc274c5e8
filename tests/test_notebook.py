"""A notebook, executed by nbclient: calls in cells, with the report as rich HTML.

It needs nbclient and ipykernel, of which no other test has use: pip install nbclient ipykernel
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]

FIRST = """
from pipeline import compress
call = dict(model={model!r}, dataset={ids!r}, modifier="rtn", store={store!r}, overrides={{
    "device": "cpu", "runner.threads": 1, "scheme.weights.group_size": 32, "eval": "none"}})
first = compress(scheme="w4a16", output_dir={first!r}, **call)
first
"""
AGAIN = """
second = compress(scheme="w8a16", output_dir={second!r}, **call)
second
"""
CACHED = """
third = compress(scheme="w4a16", output_dir={third!r}, **call)
print(first.built > 0, second.built > 0, third.built, first.checkpoint != second.checkpoint)
"""
WRONG = """
compress(scheme="w4a17", output_dir={third!r}, **call)
"""


@pytest.mark.slow
def test_a_notebook_shows_the_report_of_each_call(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "needs nbclient and ipykernel: pip install -e '.[notebook]'"
    nbclient = pytest.importorskip("nbclient", reason=reason)
    pytest.importorskip("ipykernel", reason=reason)
    import nbformat

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *filter(None, sys.path)]))
    names = {name: str(tmp_path / name) for name in ("store", "first", "second", "third")}
    ids = [list(range(start, start + 60)) for start in range(8)]
    cells = [
        nbformat.v4.new_code_cell(text.format(model=str(tiny_llama), ids=ids, **names))
        for text in (FIRST, AGAIN, CACHED, WRONG)
    ]
    cells[-1].metadata["tags"] = ["raises-exception"]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python", "language": "python"}}
    notebook = nbformat.v4.new_notebook(cells=cells, metadata=kernel)
    place = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(notebook, timeout=120, resources=place).execute()
    first, second = (html(cell) for cell in notebook.cells[:2])
    for text, checkpoint in ((first, names["first"]), (second, names["second"])):
        assert text.startswith("<iframe") and "&lt;!doctype html&gt;" in text.lower()
        assert "checks passed" in text and checkpoint in text
    assert first != second
    (told,) = [out["text"] for out in notebook.cells[2].outputs if out.get("name") == "stdout"]
    assert told.split() == ["True", "True", "0", "True"]
    (error,) = [out for out in notebook.cells[3].outputs if out["output_type"] == "error"]
    assert error["ename"] == "UserError" and "did you mean w4a16" in error["evalue"]


def html(cell: Any) -> str:
    """The rich HTML of the value that a cell ends with."""
    (value,) = [out for out in cell.outputs if out["output_type"] == "execute_result"]
    return str(value["data"]["text/html"])
