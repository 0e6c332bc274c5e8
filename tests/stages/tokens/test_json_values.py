"""JSON and JSON Lines, value by value: keys may differ, memory is bounded, faults are named."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import tracemalloc
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import UserError
from stages.tokens.datasets import json_values as reader
from stages.tokens.datasets.json_rows import JsonRows
from stages.tokens.datasets.json_values import json_values

TURN = {"role": "user", "content": "x" * 900}


def test_a_late_row_may_have_a_key_that_the_first_14_mb_lack(tmp_path):
    rows = [{"messages": [TURN]}] * 15_000 + [{"messages": [{**TURN, "name": "Ada"}]}]
    path = tmp_path / "chat.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert path.stat().st_size > 14_000_000
    tracemalloc.start()
    documents = JsonRows(path=str(path), messages_column="messages").documents(tmp_path)
    (last,) = deque(documents, maxlen=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert last == [{**TURN, "name": "Ada"}]
    assert peak < 10_000_000


def test_no_more_is_read_than_is_wanted(tmp_path):
    path = tmp_path / "chat.jsonl"
    path.write_text('{"text": "one"}\n{"text": "two"}\n' + " " * (3 * reader.CHUNK) + "no JSON")
    assert list(JsonRows(path=str(path), max_documents=2).documents(tmp_path)) == ["one", "two"]
    with pytest.raises(UserError, match=r"chat.jsonl cannot be read: value 2: Expecting value"):
        list(JsonRows(path=str(path)).documents(tmp_path))


@settings(deadline=None, max_examples=60)
@given(
    values=st.lists(
        st.dictionaries(
            st.text(max_size=4),
            st.one_of(st.text(max_size=40), st.floats(allow_nan=False), st.none(), st.booleans()),
            max_size=4,
        )
    ),
    indent=st.sampled_from([None, 1]),
    listed=st.booleans(),
    chunk=st.integers(1, 40),
)
def test_values_are_those_of_the_file_wherever_reading_stops(
    tmp_path_factory, values, indent, listed, chunk
):
    path = tmp_path_factory.mktemp("json") / "a.json"
    lines = "\n".join(json.dumps(value, indent=indent) for value in values)
    path.write_text(json.dumps(values, indent=indent) if listed else lines)
    before, reader.CHUNK = reader.CHUNK, chunk
    try:
        assert list(json_values(path)) == values
    finally:
        reader.CHUNK = before


@pytest.mark.parametrize("packed", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_lines_are_read_as_they_are(tmp_path, packed):
    (tmp_path / "a.jsonl.z").write_bytes(packed(b'{"text": "one"}\n{"text": "two", "b": 1}\n'))
    found = JsonRows(path=str(tmp_path / "a.jsonl.z")).documents(tmp_path)
    assert list(found) == ["one", "two"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b'{"a": 1}\n{"a": }\n', "value 1: Expecting value"),
        (b'[{"a": 1} {"a": 2}]', "no comma before value 1"),
        (b'[{"a": 1},', "value 1: Expecting value"),
        (b'[{"a": 1}', "its list ends after value 0 without ]"),
        (b'[{"a": 1}] {"a": 2}', "something follows its list"),
        (b'{"a": "' + b"[" * 100_000 + b'"}\n' + b"[" * 100_000, "value 1"),
        (b'{"a": ' + b"9" * 5000 + b"}", "value 0: Exceeds the limit"),
        (b'{"a": "\xe9"}', "it is not UTF-8"),
        (gzip.compress(b'{"a": 1}', mtime=0)[:-9], "end-of-stream"),
    ],
)
def test_a_fault_is_one_error_with_its_place(tmp_path, content, told):
    path = tmp_path / "broken.jsonl"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"^json broken.jsonl cannot be read") as caught:
        list(json_values(path))
    assert told in caught.value.what


def test_a_value_without_an_end_does_not_fill_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(reader, "LONGEST", 5 * reader.CHUNK)
    path = tmp_path / "a.json"
    path.write_text('{"a": "' + "x" * (20 * reader.CHUNK))
    tracemalloc.start()
    with pytest.raises(UserError, match="value 0 is longer than"):
        list(json_values(path))
    assert tracemalloc.get_traced_memory()[1] < 60 * reader.CHUNK
    tracemalloc.stop()


def test_values_that_are_no_rows_are_refused(tmp_path):
    (tmp_path / "a.json").write_text('[{"text": "a"}, 3]')
    with pytest.raises(UserError, match=r"value 1 of a.json is no object but a int"):
        list(JsonRows(path=str(tmp_path / "a.json")).documents(tmp_path))
    (tmp_path / "b.json").write_text('["a", "b"]')
    assert list(JsonRows(path=str(tmp_path / "b.json")).documents(tmp_path)) == ["a", "b"]


def test_a_column_that_most_rows_lack_is_read_where_it_is(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": 1}\n{"id": 2, "text": "two"}\n')
    assert list(JsonRows(path=str(path)).documents(tmp_path)) == ["two"]
    path.write_text('{"id": 1}\n' * 1001 + "no JSON")
    with pytest.raises(UserError, match=r"no column 'text'"):
        list(JsonRows(path=str(path)).documents(tmp_path))
