"""The kinds of dataset: which documents they give, and what they say about bad content."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from stages.tokens.datasets.json_rows import JsonRows
from stages.tokens.datasets.parquet import Parquet
from stages.tokens.datasets.pydoc import Pydoc
from stages.tokens.datasets.text import Text


def lines(path: Path, rows: list[object]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_the_halves_of_pydoc_do_not_overlap(tmp_path):
    halves = [
        "".join(map(str, Pydoc(part=part).documents(tmp_path)))
        for part in ("calibration", "held_out")
    ]
    assert "".join(halves) == "".join(map(str, Pydoc().documents(tmp_path)))
    assert min(map(len, halves)) > 100_000


def test_a_row_group_is_decoded_piece_by_piece(tmp_path):
    count = 200_000
    text = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(count, np.int32)), pa.array(["a" * 200])
    )
    pq.write_table(pa.table({"text": text}), tmp_path / "x.parquet", row_group_size=count)
    before = pa.total_allocated_bytes()
    documents = Parquet(path=str(tmp_path)).documents(tmp_path)
    assert next(documents) == "a" * 200
    assert pa.total_allocated_bytes() - before < 20_000_000 < 200 * count


def test_text_is_read_from_a_file_a_folder_and_a_pattern(tmp_path):
    (tmp_path / "b.txt").write_text("two")
    (tmp_path / "a.txt").write_text("one")
    (tmp_path / "c.bin").write_bytes(b"\xff")
    for path in (tmp_path, tmp_path / "*.txt"):
        assert list(Text(path=str(path)).documents(tmp_path)) == ["one", "two"]
    assert list(Text(path=str(tmp_path / "b.txt")).documents(tmp_path)) == ["two"]


def test_text_can_be_sampled_by_paragraph_and_line(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("a\nb\n\nc")
    assert list(Text(path=str(path), sample_by="paragraph").documents(tmp_path)) == ["a\nb", "c"]
    assert list(Text(path=str(path), sample_by="line").documents(tmp_path)) == ["a", "b", "", "c"]


@pytest.mark.parametrize("name", ["a.jsonl", "odd [1] name?.jsonl"])
def test_json_lines_give_their_column(tmp_path, name):
    path = lines(tmp_path / name, [{"body": "one"}, {"body": ""}, {"body": "two"}])
    assert list(JsonRows(path=path, text_column="body").documents(tmp_path)) == ["one", "two"]
    first = JsonRows(path=path, text_column="body", max_documents=1)
    assert list(first.documents(tmp_path)) == ["one"]


def test_a_json_list_and_parquet_give_the_same_documents(tmp_path):
    rows = [{"text": "one"}, {"text": "two"}]
    (tmp_path / "a.json").write_text(json.dumps(rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    json_rows = JsonRows(path=str(tmp_path / "a.json")).documents(tmp_path)
    parquet = Parquet(path=str(tmp_path)).documents(tmp_path)
    assert list(json_rows) == list(parquet) == ["one", "two"]


def test_conversations_keep_their_turns(tmp_path):
    chat = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho", "x": "y"}]
    path = lines(tmp_path / "a.jsonl", [{"messages": chat}])
    (found,) = JsonRows(path=path, messages_column="messages").documents(tmp_path)
    assert found == chat


@pytest.mark.parametrize(
    ("rows", "options", "told"),
    [
        ([{"a": "x", "b": "y"}], {}, r"no column 'text'[^$]*it has a, b"),
        ([{"text": 3}], {}, "no text in column 'text' but a int"),
        ([{"text": "x"}], {"messages_column": "text"}, "no conversation"),
    ],
)
def test_a_wrong_column_is_named(tmp_path, rows, options, told):
    path = lines(tmp_path / "a.jsonl", rows)
    with pytest.raises(UserError, match=told):
        list(JsonRows(path=path, **options).documents(tmp_path))


@pytest.mark.parametrize("content", [b"{not json", b'{"text": "a"}\n{"text": "b', b"\xff\xfe{"])
@pytest.mark.parametrize("kind", [JsonRows, Parquet])
def test_a_broken_file_is_one_error_that_names_it(tmp_path, kind, content, capfd):
    path = tmp_path / "broken.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"broken.jsonl cannot be read"):
        list(kind(path=str(path)).documents(tmp_path))
    assert capfd.readouterr().err == ""


def test_other_encodings_are_refused(tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes("é".encode("latin-1"))
    with pytest.raises(UserError, match="not UTF-8"):
        list(Text(path=str(path)).documents(tmp_path))


def test_an_empty_file_is_refused(tmp_path):
    path = tmp_path / "a.jsonl"
    path.touch()
    with pytest.raises(UserError, match="is empty"):
        list(JsonRows(path=str(path)).documents(tmp_path))


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: Pydoc(part="rest"), "part is 'rest'"),
        (lambda: Pydoc(num_samples=0), "num_samples is 0"),
        (lambda: Pydoc(sequence_length=1), "sequence_length is 1"),
        (lambda: Text(path="x", sample_by="word"), "sample_by is 'word'"),
        (lambda: JsonRows(path="x", max_documents=0), "max_documents is 0"),
    ],
)
def test_values_out_of_range_are_refused(make, told):
    with pytest.raises(UserError, match=told):
        make()
