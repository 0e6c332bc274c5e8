"""What a dataset needs of a model is told before anything runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from stages.load.model_kind import SourceFacts
from stages.load.side_files import has_chat_template, has_tokenizer, small_files
from stages.load.stage import quantized_note
from stages.tokens.dataset import Dataset
from stages.tokens.datasets.json_rows import JsonRows
from stages.tokens.datasets.text import Text
from stages.tokens.requirements import lacking

TEXT = Text(path="a.txt")
CHAT = JsonRows(path="a.jsonl", messages_column="messages")
IDS = JsonRows(path="a.jsonl", ids_column="ids")


def facts(**known: object) -> SourceFacts:
    return SourceFacts(config=None, identity=None, bytes=None, label="m", **known)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("dataset", "tokenizer", "template", "problem"),
    [
        (TEXT, False, False, "without a tokenizer"),
        (CHAT, False, False, "without a tokenizer"),
        (CHAT, True, False, "no chat template"),
        (TEXT, True, False, ""),
        (IDS, False, False, ""),
        (CHAT, True, True, ""),
        (CHAT, None, None, ""),
    ],
)
def test_a_tokenizer_and_a_template_are_missed_where_they_are_needed(
    dataset: Dataset, tokenizer: bool | None, template: bool | None, problem: str
) -> None:
    error = lacking(dataset, facts(tokenizer=tokenizer, chat_template=template))
    assert (problem in str(error)) if problem else error is None


def test_templates_are_found_where_transformers_finds_them(tmp_path: Path) -> None:
    def found() -> tuple[bool, bool | None]:
        files = small_files(tmp_path, code=False)
        return has_tokenizer(files), has_chat_template(files)

    assert found() == (False, False)
    config = tmp_path / "tokenizer_config.json"
    config.write_text(json.dumps({"chat_template": None}))
    assert found() == (True, False)
    config.write_text("{")
    assert found() == (True, None)
    config.write_text(json.dumps({"chat_template": "{{ messages }}"}))
    assert found() == (True, True)
    config.write_text("{}")
    (tmp_path / "chat_template.jinja").write_text("{{ messages }}")
    assert found() == (True, True)


def test_a_plan_says_that_a_source_is_quantized_already() -> None:
    assert quantized_note(facts()) == ()
    (note,) = quantized_note(facts(quantization={"quant_method": "gptq"}))
    assert note.startswith("m is quantized already (gptq): modifier=keep")
