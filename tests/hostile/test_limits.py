"""Small files that would take much memory or time: one clear error, soon."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.recipe_import import translated
from pipeline.errors import UserError
from pipeline.registry import Registry
from stages.formats.compressed_tensors_bridge import parse
from stages.load.side_files import read_config
from stages.model.config_counts import check_counts
from stages.model.tokenizer.check import MOST, check_ids
from stages.model.tokenizer.load import readable
from stages.schemes.scheme import MOST_GROUPS, SchemeConfig, SchemeGroup
from stages.tokens.datasets import json_values
from stages.tokens.tokenizer import Tokenizer
from stages.weights.gguf_header import read_gguf_header
from stages.weights.untrusted_json import read_json
from tests.stages.schemes.presets import load


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "read",
    [
        lambda path: read_json(path, longest=1000),
        lambda path: translated(path, Registry.load()),
        lambda path: list(json_values.json_values(path)),
        read_gguf_header,
    ],
    ids=["json", "recipe", "json lines", "gguf"],
)
def test_a_pipe_is_no_file_and_nothing_waits_for_it(
    tmp_path: Path, read: Callable[[Path], Any]
) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"no plain file|is no file"):
        read(tmp_path / "pipe")


@pytest.mark.parametrize(
    "config",
    [
        {"num_labels": 10**6},
        {"num_hidden_layers": 5000},
        {"text_config": {"num_attention_heads": 10**6}},
        {"parts": [{"vocab_size": 1 << 25}]},
        {"max_position_embeddings": 1 << 30},
    ],
    ids=str,
)
def test_counts_that_no_model_has_are_refused(tmp_path: Path, config: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="no model has more than"):
        check_counts(config)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", **config}))
    with pytest.raises(UserError, match="no model has more than"):
        read_config(tmp_path / "config.json")


FILES: dict[str, Any] = {
    "tokenizer.json": {"model": {"vocab": {"a": 0, "b": MOST}}},
    "vocab.json": {"a": MOST},
    "added_tokens.json": {"a": MOST},
    "tokenizer_config.json": {"added_tokens_decoder": {str(MOST): {"content": "a"}}},
}


@pytest.mark.parametrize("name", FILES)
def test_a_token_id_beyond_every_vocabulary_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(json.dumps(FILES[name]))
    with pytest.raises(UserError, match=f"{name} .*has the token id {MOST}"):
        check_ids(tmp_path)


def test_other_long_numbers_of_a_tokenizer_are_no_ids(tmp_path: Path) -> None:
    settings = {"model_max_length": 10**30, "added_tokens_decoder": {"32000": {"content": "a"}}}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    added = [{"id": 7, "content": "123456789"}, {"id": None}, 3]
    content = {"model": {"vocab": [["123456789", -1.5]]}, "added_tokens": added}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    check_ids(tmp_path)


@pytest.mark.parametrize(("key", "most"), [("block_count", 2000), ("expert_count", 10_000)])
def test_counts_of_a_gguf_file_are_bounded(tmp_path: Path, key: str, most: int) -> None:
    for count in (most, most + 1):
        path = tmp_path / f"{count}.gguf"
        path.write_bytes(gguf({"general.architecture": "llama", f"llama.{key}": count}))
        if count == most:
            assert read_gguf_header(path).architecture == "llama"
        else:
            with pytest.raises(UserError, match=f"{key} {count}: no model has more than {most}"):
                read_gguf_header(path)


def gguf(values: dict[str, str | int]) -> bytes:
    """A GGUF file without tensors."""

    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    entries = b""
    for key, value in values.items():
        if isinstance(value, str):
            entries += text(key) + struct.pack("<I", 8) + text(value)
        else:
            entries += text(key) + struct.pack("<II", 4, value)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, len(values)) + entries + bytes(32)


def test_a_line_of_json_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "LONGEST", 1000)
    monkeypatch.setattr(json_values, "CHUNK", 100)
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "a" * 900}) + "\n")
    assert [len(row["text"]) for row in json_values.json_values(tmp_path / "rows.jsonl")] == [900]
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": ["a"] * 400}) + "\n")
    with pytest.raises(UserError, match="value 0 is longer than 1000 characters"):
        list(json_values.json_values(tmp_path / "rows.jsonl"))


def test_groups_of_a_config_and_of_a_scheme_are_bounded() -> None:
    names = [f"g{number}" for number in range(MOST_GROUPS + 1)]
    group = {"targets": ["Linear"], "weights": {"num_bits": 8}}
    with pytest.raises(UserError, match="1001 groups"):
        parse({"quant_method": "compressed-tensors", "config_groups": dict.fromkeys(names, group)})
    weights = SchemeGroup(weights=load("w8a16").weights)
    with pytest.raises(UserError, match="1001 groups"):
        SchemeConfig(groups=dict.fromkeys(names, weights))


BROKEN: dict[str, Any] = {
    "merges of tokens that are not there": {"type": "BPE", "vocab": {"a": 0}, "merges": ["a b"]},
    "another kind of model": {"type": "NoModel", "vocab": {}},
    "ids that are no numbers": {"type": "WordLevel", "vocab": {"a": []}, "unk_token": "a"},
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_tokenizer_is_one_clear_error(tmp_path: Path, fault: str) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0", "model": BROKEN[fault]}))
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "TokenizersBackend"}')
    with pytest.raises(UserError, match="the model's tokenizer cannot be loaded: "):
        Tokenizer(tmp_path)


def test_what_is_no_matter_of_the_files_goes_on() -> None:
    with pytest.raises(KeyboardInterrupt), readable("x"):
        raise KeyboardInterrupt
    with pytest.raises(MemoryError), readable("x"):
        raise MemoryError
