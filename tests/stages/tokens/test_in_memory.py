"""Data given to a call from Python: file names, and rows in memory of every kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import pytest
import torch

from pipeline.errors import UserError
from stages.tokens.in_memory import saved

CHAT = [{"role": "user", "content": "hi"}]


def rows_of(found: Any) -> list[Any]:
    lines = Path(found["dataset.path"]).read_text().splitlines()
    return [value for line in lines for value in json.loads(line).values()]


@pytest.mark.parametrize(
    ("given", "rows"),
    [
        (["one", "two"], ["one", "two"]),
        ([[1, 2], [3]], [[1, 2], [3]]),
        ([CHAT], [CHAT]),
        ([{"input_ids": torch.tensor([[1, 2]]), "attention_mask": 1}], [[1, 2]]),
        (torch.tensor([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (datasets.Dataset.from_list([{"text": "a"}, {"text": "b"}]), ["a", "b"]),
        (datasets.Dataset.from_list([{"input_ids": [4, 5], "labels": [4, 5]}]), [[4, 5]]),
        (({"messages": CHAT} for _ in range(2)), [CHAT, CHAT]),
    ],
)
def test_rows_are_texts_ids_or_conversations(given: Any, rows: list[Any], tmp_path: Path) -> None:
    found = saved("dataset", {"dataset": given}, tmp_path)
    assert found is not None and found["dataset"] == "json"
    assert rows_of(found) == rows
    if isinstance(rows[0], str):
        assert found.keys() == {"dataset", "dataset.path"}
    else:
        assert found["dataset.num_samples"] == len(rows) and found["dataset.packing"] is False


def test_ids_are_not_cut(tmp_path: Path) -> None:
    found = saved("dataset", {"dataset": [[1], [1, 2, 3]]}, tmp_path)
    assert found is not None
    assert (found["dataset.sequence_length"], found["dataset.ids_column"]) == (3, "input_ids")


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("pydoc", {"dataset": "pydoc"}),
        ("/x/a.jsonl", {"dataset": "json", "dataset.path": Path("/x/a.jsonl")}),
        (Path("/x/a.txt"), {"dataset": "text", "dataset.path": Path("/x/a.txt")}),
    ],
)
def test_a_text_is_a_file_or_an_option(given: Any, found: Any, tmp_path: Path) -> None:
    assert saved("dataset", {"dataset": given}, tmp_path) == found


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ([], "no rows"),
        ([[]], "row 0 of dataset is empty"),
        (["a", [1]], "rows of one kind"),
        ([{"body": "x"}], "row 0 of dataset has body"),
        ([3], "row 0 of dataset is a int"),
        (Path("/x/a.bin"), "no kind of file"),
    ],
)
def test_other_rows_are_refused(given: Any, told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        saved("dataset", {"dataset": given}, tmp_path)
