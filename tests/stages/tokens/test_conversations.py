"""Conversations: what reaches the chat template, and what is said where it refuses them."""

from __future__ import annotations

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import UserError
from pipeline.key import digest
from stages.tokens.datasets.json_rows import JsonRows
from stages.tokens.datasets.parquet import Parquet
from stages.tokens.stage import Tokens, TokensConfig
from tests.stages.tokens.fakes import byte_tokenizer, model_artifact, tokens_of

CALL = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Ulm"}}}
USER = {"role": "user", "content": "?"}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>"
    "{% if m.content is none %}{{ m.tool_calls[0].function.name }}{{ m.tool_calls | tojson }}"
    "{% else %}{{ m.content }}{% endif %}{% endfor %}"
)
"""Tells a tool call by its content, which is null, as the template of DeepSeek-V3 does."""


def text_of(tmp_path, turns, template, name="a.jsonl"):
    path = tmp_path / name
    path.write_text(json.dumps({"messages": turns}) + "\n")
    return rendered(tmp_path, JsonRows, path, template)


def rendered(tmp_path, kind, path, template):
    dataset = kind(
        path=str(path),
        messages_column="messages",
        num_samples=1,
        sequence_length=400,
        packing=False,
    )
    model = model_artifact(tmp_path / "load", template=template)
    ids, _, _ = tokens_of(dataset, model, tmp_path / "out")
    return byte_tokenizer().decode(ids[0])


def test_a_null_content_reaches_the_template_of_a_tool_call(tmp_path):
    expected = "<user>?<assistant>weather" + json.dumps([CALL])
    assert text_of(tmp_path, [USER, CALLING], TEMPLATE) == expected
    without = {name: value for name, value in CALLING.items() if name != "content"}
    assert text_of(tmp_path, [USER, without], TEMPLATE) == expected


def test_a_table_gives_a_tool_call_without_the_nulls_it_adds(tmp_path):
    other = {"type": "function", "function": {"name": "news", "arguments": {"topic": "rain"}}}
    rows = [[USER, CALLING], [USER, {**CALLING, "tool_calls": [other]}]]
    table = pa.Table.from_pylist([{"messages": turns} for turns in rows])
    pq.write_table(table, tmp_path / "a.parquet")
    dataset = Parquet(path=str(tmp_path / "a.parquet"), messages_column="messages")
    assert list(dataset.documents(tmp_path)) == rows
    pq.write_table(table.slice(0, 1), tmp_path / "b.parquet")
    expected = "<user>?<assistant>weather" + json.dumps([CALL])
    assert rendered(tmp_path, Parquet, tmp_path / "b.parquet", TEMPLATE) == expected


def test_a_null_content_of_other_turns_is_no_text(tmp_path):
    thinking = {"role": "assistant", "content": None, "reasoning": "hm"}
    template = "{% for m in messages %}{{ m.role + m.content }}{% endfor %}"
    assert text_of(tmp_path, [USER, thinking], template) == "user?assistant"


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[0].a.b.c }}", "has no attribute 'a'"),
        ("{{ messages[0].content + 1 }}", "can only concatenate str"),
        ("{{ 1 // 0 }}", "integer division or modulo by zero"),
        ("{% for m in messages %}", "end of"),
        ("{{ range(10 ** 9) | list }}", "Range too big"),
    ],
)
def test_a_template_that_refuses_is_one_error(tmp_path, template, told):
    with pytest.raises(UserError) as caught:
        text_of(tmp_path, [USER], template)
    assert "the chat template refuses a conversation of user: " in caught.value.what
    assert told in caught.value.what


def test_a_template_without_tool_calls_does_not_lose_them_silently(tmp_path):
    template = "{% for m in messages %}{{ m.role }}{{ m.content }}{% endfor %}"
    with pytest.raises(UserError, match=r"leaves out tool calls: nothing of 'weather'"):
        text_of(tmp_path, [USER, CALLING], template)


@pytest.mark.parametrize("turns", [[{"role": "user"}], [{"content": "a"}], ["a"], [None]])
def test_turns_without_role_or_content_are_refused(tmp_path, turns):
    with pytest.raises(UserError, match=r"row 0 of json a.jsonl.* has no conversation"):
        text_of(tmp_path, turns, TEMPLATE)


def test_half_a_surrogate_pair_is_one_error(tmp_path):
    with pytest.raises(UserError, match=r"the tokenizer refuses a text"):
        text_of(tmp_path, [{"role": "user", "content": "\ud83d"}], TEMPLATE)


def test_only_conversations_have_another_key_for_their_nulls(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_text("{}")

    def semantics(**options):
        return Tokens(TokensConfig(dataset=JsonRows(path=str(path), **options))).semantics(None)

    assert "conversations" not in semantics()
    assert semantics(messages_column="messages")["conversations"] == 2
    assert digest(semantics()) != digest(semantics(messages_column="messages"))


@pytest.mark.parametrize("kind", ["image", "image_url", "input_audio", "video"])
def test_images_and_sounds_are_refused_by_name(tmp_path, kind):
    parts = [{"type": "text", "text": "what is it?"}, {"type": kind, "url": "a"}]
    with pytest.raises(UserError, match=rf"has a conversation with {kind}, which calibration"):
        text_of(tmp_path, [{"role": "user", "content": parts}], TEMPLATE)
