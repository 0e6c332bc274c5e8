"""`dataset.tokens=assistant`: what the template marks as the assistant's counts, nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from pipeline.errors import UserError
from pipeline.key import digest
from stages.tokens.datasets.json_rows import JsonRows
from stages.tokens.stage import Tokens, TokensConfig
from tests.stages.tokens.fakes import TEMPLATE, byte_tokenizer, model_artifact, tokens_of

MARKED = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' %}"
    "{% generation %}{{ m.content }}|{% endgeneration %}"
    "{% else %}{{ m.content }}|{% endif %}{% endfor %}"
)
TURNS = [
    {"role": "user", "content": "first"},
    {"role": "assistant", "content": "one \u00e9 "},
    {"role": "user", "content": "second"},
    {"role": "assistant", "content": "two"},
]
TEXT = "<user>first|<assistant>one \u00e9 |<user>second|<assistant>two|"


def dataset(tmp_path: Path, **options: Any) -> JsonRows:
    path = tmp_path / "a.jsonl"
    path.write_text((json.dumps({"messages": TURNS}) + "\n") * 4)
    given = {"num_samples": 2, "sequence_length": 80, "packing": False, "tokens": "assistant"}
    return JsonRows(path=str(path), messages_column="messages", **{**given, **options})


def counted(tmp_path: Path, rows: JsonRows, **model: Any) -> tuple[Any, Any, dict[str, Any]]:
    given = {"template": MARKED, **model}
    ids, _, meta = tokens_of(rows, model_artifact(tmp_path / "load", **given), tmp_path / "out")
    return ids, load_file(tmp_path / "out" / "tokens.safetensors")["counted"], meta


def test_only_what_the_assistant_says_counts(tmp_path: Path) -> None:
    ids, marks, meta = counted(tmp_path, dataset(tmp_path))
    assert ids.shape == marks.shape == (2, len(TEXT.encode()))
    for row, own in zip(ids, marks, strict=True):
        assert byte_tokenizer().decode(row) == TEXT
        assert byte_tokenizer().decode(row[own.astype(bool)]) == "one \u00e9 |two|"
    assert meta["counted"] == int(marks.sum()) == 2 * len("one \u00e9 |two|".encode())


def test_padding_and_what_is_cut_off_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    short = [{"role": "assistant", "content": "x"}]
    path.write_text(json.dumps({"messages": TURNS}) + "\n" + json.dumps({"messages": short}))
    rows = JsonRows(
        path=str(path),
        messages_column="messages",
        num_samples=2,
        sequence_length=30,
        packing=False,
        tokens="assistant",
    )
    _, marks, _ = counted(tmp_path, rows)
    assert sorted(marks.sum(axis=1).tolist()) == [2, 30 - len("<user>first|<assistant>")]


@pytest.mark.parametrize("bos", [False, True])
def test_windows_carry_their_marks(tmp_path: Path, bos: bool) -> None:
    packed = dataset(tmp_path, packing=True, num_samples=6, sequence_length=32)
    ids, marks, _ = counted(tmp_path, packed, bos=bos)
    plain = dataset(tmp_path, packing=True, num_samples=6, sequence_length=32, tokens="all")
    model = model_artifact(tmp_path / "load", template=MARKED, bos=bos)
    same, _, meta = tokens_of(plain, model, tmp_path / "plain")
    assert (ids == same).all() and "counted" not in meta
    assert "counted" not in load_file(tmp_path / "plain" / "tokens.safetensors")
    kept = [row[own.astype(bool)] for row, own in zip(ids, marks, strict=True)]
    text = "".join(map(byte_tokenizer().decode, kept))
    assert set(text) <= set("one \u00e9|tw\ufffd") and "two|" in text
    assert not bos or not marks[:, 0].any()


@pytest.mark.parametrize(
    ("options", "template", "told"),
    [
        ({}, TEMPLATE, "has no {% generation %} block"),
        ({"sequence_length": 8}, MARKED, "no token of the assistant is in the 2 samples"),
    ],
)
def test_nothing_to_count_is_one_error(
    tmp_path: Path, options: dict[str, Any], template: str, told: str
) -> None:
    with pytest.raises(UserError) as caught:
        counted(tmp_path, dataset(tmp_path, **options), template=template)
    assert told in caught.value.what


def test_values_that_make_no_sense_are_refused() -> None:
    with pytest.raises(UserError, match="tokens is 'user'"):
        JsonRows(path="x", messages_column="messages", tokens="user")
    with pytest.raises(UserError, match="has no conversations"):
        JsonRows(path="x", tokens="assistant")


def test_the_key_tells_what_counts(tmp_path: Path) -> None:
    keys = [
        digest(Tokens(TokensConfig(dataset=dataset(tmp_path, tokens=which))).semantics(None))
        for which in ("all", "assistant")
    ]
    assert keys[0] != keys[1]
