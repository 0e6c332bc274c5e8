"""Dataset argument of a call from Python: a short text, or rows in memory, saved to a file."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

SUFFIXES = {
    ".txt": "text",
    ".md": "text",
    ".json": "json",
    ".jsonl": "json",
    ".ndjson": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
}
IDS, MESSAGES, TEXT = "input_ids", "messages", "text"


def saved(argument: str, arguments: Mapping[str, Any], folder: Path) -> Mapping[str, Any] | None:
    """Overrides for `dataset`; rows in memory are saved into `folder`/dataset.

    A text is a file, by its suffix, or an option of the group `dataset`. Rows are texts, lists of
    token ids, conversations, or mappings (a `datasets.Dataset` has such) with `input_ids`,
    `messages` or `text`. Ids and conversations are a sample each, all of them are taken; texts form
    one stream that is cut into windows, as the config says.
    """
    if argument != "dataset":
        return None
    value = arguments[argument]
    if isinstance(value, str | Path):
        return _named(value)
    if not isinstance(value, Iterable) or isinstance(value, Mapping | bytes):
        return None
    (folder / "dataset").mkdir(parents=True, exist_ok=True)
    path = folder / "dataset" / "rows.jsonl"
    columns, count, longest = set[str](), 0, 0
    with path.open("w", encoding="utf-8") as file:
        for number, row in enumerate(value):
            column, content = _content(row, number)
            columns.add(column)
            count, longest = count + 1, max(longest, len(content) if column == IDS else 0)
            file.write(json.dumps({column: content}, ensure_ascii=False) + "\n")
    if not count:
        raise UserError("dataset has no rows", remedy="give texts, lists of token ids, or rows")
    if len(columns) > 1:
        raise UserError(
            f"rows of dataset have {' and '.join(sorted(columns))}",
            remedy="give rows of one kind",
        )
    column = columns.pop()
    chosen: dict[str, Any] = {"dataset": "json", "dataset.path": path}
    if column == TEXT:
        return chosen
    chosen |= {"dataset.packing": False, "dataset.num_samples": count}
    if column == MESSAGES:
        return {**chosen, "dataset.messages_column": MESSAGES}
    return {
        **chosen,
        "dataset.sequence_length": max(longest, 2),
        "dataset.ids_column": IDS,
    }


def _named(value: str | Path) -> Mapping[str, Any]:
    path = Path(value).expanduser()
    if path.suffix in SUFFIXES:
        return {"dataset": SUFFIXES[path.suffix], "dataset.path": path.absolute()}
    if path.exists() or isinstance(value, Path):
        raise UserError(
            f"dataset is {value}, of which no kind of file is known",
            remedy=f"give a file of one of {', '.join(SUFFIXES)}, or say dataset=json "
            "dataset.path=... among the overrides",
        )
    return {"dataset": str(value)}


def _content(row: Any, number: int) -> tuple[str, Any]:
    """The column and content of one row; raises UserError for what is none."""
    if isinstance(row, Mapping):
        for column in (IDS, MESSAGES, TEXT):
            if (content := row.get(column)) is not None:
                return column, _plain(content)
        raise UserError(
            f"row {number} of dataset has {', '.join(map(str, row)) or 'nothing'}",
            remedy=f"rows need one of {IDS}, {MESSAGES}, {TEXT}: rename a column to it",
        )
    if isinstance(row, str):
        return TEXT, row
    content = _plain(row)
    if isinstance(content, Sequence) and content:
        if isinstance(content[0], Mapping):
            return MESSAGES, content
        if all(type(id) is int for id in content):
            return IDS, content
    raise UserError(
        f"row {number} of dataset is {'empty' if content == [] else f'a {type(row).__name__}'}",
        remedy="rows are texts, lists of token ids, conversations, or mappings with one of them",
    )


def _plain(content: Any) -> Any:
    """Plain lists and numbers of a tensor or array; a batch of one is its only row."""
    plain = content.tolist() if hasattr(content, "tolist") else content
    if isinstance(plain, Sequence) and len(plain) == 1 and isinstance(plain[0], list):
        return plain[0]
    return plain
