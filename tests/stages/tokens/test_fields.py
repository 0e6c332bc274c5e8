"""Rows of other layouts: ShareGPT, own names of roles, columns that are turns, text of columns."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.key import digest
from stages.tokens.datasets.json_rows import JsonRows
from stages.tokens.stage import Tokens, TokensConfig
from tests.stages.tokens.fakes import TEMPLATE, byte_tokenizer, model_artifact, tokens_of

OTHER = {"role": "who", "content": "says", "user": "customer", "assistant": "agent"}
TALK = [{"who": "customer", "says": "Hello?"}, {"who": "agent", "says": "Yes."}]
SHAREGPT = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "Hello?"},
    {"from": "gpt", "value": "Yes."},
]


def dataset_of(tmp_path: Path, row: dict[str, Any], **options: Any) -> JsonRows:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row) + "\n")
    return JsonRows(path=str(path), num_samples=1, sequence_length=200, packing=False, **options)


@pytest.mark.parametrize(
    ("row", "options", "text"),
    [
        (
            {"conversations": SHAREGPT},
            {"messages_column": "conversations"},
            "<system>Be brief.<user>Hello?<assistant>Yes.",
        ),
        (
            {"log": TALK},
            {"messages_column": "log", "fields": OTHER},
            "<user>Hello?<assistant>Yes.",
        ),
        (
            {"instruction": "Hello?", "input": "", "output": "Yes."},
            {"fields": {"system": "input", "user": "instruction", "assistant": "output"}},
            "<user>Hello?<assistant>Yes.",
        ),
        (
            {"title": "Rain", "body": "It falls.", "n": None},
            {"fields": {"text": "{title}{n}: {body}"}},
            "Rain: It falls.",
        ),
    ],
)
def test_the_tokens_are_those_of_the_layout_that_is_named(
    tmp_path: Path, row: dict[str, Any], options: dict[str, Any], text: str
) -> None:
    dataset = dataset_of(tmp_path, row, **options)
    model = model_artifact(tmp_path / "load", template=TEMPLATE)
    ids, lengths, _ = tokens_of(dataset, model, tmp_path / "out")
    assert byte_tokenizer().decode(ids[0][: lengths[0]], skip_special_tokens=True) == text


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"fields": {"role": "who"}}, "fields has role"),
        ({"fields": {"text": "title"}}, "fields.text is 'title'"),
        ({"fields": {"text": "{a}", "user": "b"}}, "fields has text and roles"),
        ({"fields": {"user": "a"}, "ids_column": "ids"}, "fields and ids_column are both given"),
        ({"fields": {"text": "{a}"}, "messages_column": "m"}, "fields has text"),
    ],
)
def test_a_mapping_that_says_nothing_of_the_layout_is_refused(
    tmp_path: Path, options: dict[str, Any], problem: str
) -> None:
    with pytest.raises(UserError, match=problem):
        dataset_of(tmp_path, {}, **options)


def test_a_mapping_is_in_the_key_where_it_is_given(tmp_path: Path) -> None:
    def key(**options: Any) -> str:
        dataset = dataset_of(tmp_path, {"log": TALK}, messages_column="log", **options)
        return digest(Tokens(TokensConfig(dataset=dataset)).semantics(None))

    dataset = dataset_of(tmp_path, {"log": TALK}, messages_column="log")
    kept = Tokens(TokensConfig(dataset=dataset)).semantics(None)
    assert "fields" not in kept["fields"]  # results of before it stay valid
    assert key(fields=OTHER) != key()
    assert key(fields=OTHER) != key(fields={**OTHER, "user": "agent", "assistant": "customer"})


def test_a_column_that_is_not_there_is_named(tmp_path: Path) -> None:
    dataset = dataset_of(tmp_path, {"a": "b"}, fields={"user": "a", "assistant": "output"})
    with pytest.raises(UserError, match="has no column 'output'"):
        list(dataset.documents(tmp_path))
