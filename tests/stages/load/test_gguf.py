from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_gguf_pytorch_utils import load_gguf_checkpoint

from pipeline.errors import UserError
from pipeline.outside import FileChanged
from stages.load.gguf import GgufModel
from stages.load.gguf_tokenizer import tokenizer_of
from stages.load.stage import Load, LoadConfig
from stages.quantized.open import open_source
from stages.tokens.datasets.conversation import conversation
from stages.tokens.tokenizer import Tokenizer
from stages.weights import hashes
from stages.weights.gguf_header import read_gguf_header
from tests.stages.load.conftest import View, write_gguf_model


def surveyed(path: Path, **more: Any) -> Load:
    made = Load(LoadConfig(model=GgufModel(path=str(path), **more)))
    survey = made.survey(View())
    assert not survey.problems
    return survey.settled


def as_transformers_reads(path: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    config = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    return load_gguf_checkpoint(path, return_tensors=True, model_to_load=model, torch_dtype=dtype)[
        "tensors"
    ]


def assert_equal_tensors(result, expected: dict[str, torch.Tensor]) -> None:
    source = open_source(result)
    specs = source.specs()
    assert set(specs) == set(expected)
    for name, tensor in expected.items():
        found = source.read([name])[name]
        assert found.dtype == tensor.dtype and found.shape == specs[name].shape == tensor.shape
        assert torch.equal(found, tensor), name


@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_tensors_equal_those_of_transformers(tiny_gguf: Path, load, dtype: str) -> None:
    result, _ = load(surveyed(tiny_gguf, dtype=dtype))
    assert_equal_tensors(result, as_transformers_reads(tiny_gguf, getattr(torch, dtype)))


def test_a_file_that_changes_is_read_no_further(tiny_gguf: Path, load) -> None:
    result, _ = load(surveyed(tiny_gguf))
    source, times = open_source(result), tiny_gguf.stat()
    tiny_gguf.write_bytes(tiny_gguf.read_bytes()[:-1] + b"x")
    os.utime(tiny_gguf, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(FileChanged, match="changed while it was in use"):
        source.read(["model.norm.weight"])
    with pytest.raises(UserError, match="has changed since it was loaded"):
        open_source(result)


def test_a_file_of_the_same_times_and_inode_is_read_on_demand(
    tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hashes, "_known", lambda state: (state.size, 0, 0, 0))
    before = surveyed(tiny_gguf).semantics(None)
    tiny_gguf.write_bytes(tiny_gguf.read_bytes()[:-1] + b"x")
    assert surveyed(tiny_gguf).semantics(None) == before
    assert surveyed(tiny_gguf, rehash=True).semantics(None) != before


def test_config_is_what_transformers_reads(tiny_gguf: Path, load) -> None:
    result, _ = load(surveyed(tiny_gguf))
    found = AutoConfig.from_pretrained(result.path / "model")
    expected = AutoConfig.from_pretrained(tiny_gguf.parent, gguf_file=tiny_gguf.name)
    names = ("hidden_size", "num_key_value_heads", "vocab_size", "tie_word_embeddings")
    names = (*names, "rope_parameters", "rms_norm_eps", "intermediate_size", "num_hidden_layers")
    assert [getattr(found, n) for n in names] == [getattr(expected, n) for n in names]
    assert found.architectures == ["LlamaForCausalLM"] and found.dtype == torch.bfloat16
    text = (result.path / "model" / "config.json").read_text()
    assert not [name for name in json.loads(text) if name.startswith("_")]


def test_no_small_file_names_a_path_of_this_machine(tiny_gguf: Path, load) -> None:
    result, _ = load(surveyed(tiny_gguf))
    for file in (result.path / "model").iterdir():
        assert str(tiny_gguf.parent) not in file.read_text(), file.name


def test_the_tokenizer_splits_as_transformers_does(tiny_gguf: Path, load) -> None:
    result, _ = load(surveyed(tiny_gguf))
    found = AutoTokenizer.from_pretrained(result.path / "model")
    expected = AutoTokenizer.from_pretrained(tiny_gguf.parent, gguf_file=tiny_gguf.name)
    text = "abcdefgab<s>xyz</s>"
    assert found(text)["input_ids"] == expected(text)["input_ids"]


def test_special_tokens_are_those_that_the_file_names(tiny_gguf: Path, load) -> None:
    result, _ = load(surveyed(tiny_gguf))
    found = AutoTokenizer.from_pretrained(result.path / "model")
    assert (found.bos_token_id, found.eos_token_id, found.unk_token_id) == (0, 1, 2)


def test_a_file_that_names_no_special_tokens_gets_none(tmp_path: Path) -> None:
    write_gguf_model(tmp_path / "x.gguf", special=False)
    found = tokenizer_of(tmp_path / "x.gguf", "llama")
    assert (found.eos_token, found.pad_token) == (None, None) and len(found) == 32


def test_no_token_is_added_to_those_of_the_file(tiny_gguf: Path, tmp_path: Path) -> None:
    tokenizer_of(tiny_gguf, "llama").save_pretrained(tmp_path / "saved")
    found = AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert len(found) == 32 and max(found("ab<|endoftext|>cd")["input_ids"]) < 32
    assert found.convert_tokens_to_ids(["<s>", "</s>", "<unk>"]) == [0, 1, 2]
    assert (found.bos_token, found.eos_token, found.unk_token) == ("<s>", "</s>", "<unk>")


def test_a_tokenizer_beside_the_file_is_not_taken_for_its_own(tiny_gguf: Path) -> None:
    before = tokenizer_of(tiny_gguf, "llama")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (tiny_gguf.parent / name).write_text('{"bos_token": "other"}')
    after = tokenizer_of(tiny_gguf, "llama")
    assert after.backend_tokenizer.to_str() == before.backend_tokenizer.to_str()
    assert after.special_tokens_map == before.special_tokens_map and after.bos_token_id == 0


def test_plan_knows_the_config_before_anything_is_stored(tiny_gguf: Path) -> None:
    made = Load(LoadConfig(model=GgufModel(path=str(tiny_gguf))))
    facts = made.survey(View(mode="plan")).facts
    assert facts.config["hidden_size"] == 64 and facts.config["vocab_size"] == 32


def test_the_key_follows_content_and_dtype(tiny_gguf: Path) -> None:
    before = surveyed(tiny_gguf).semantics(None)
    moved = tiny_gguf.rename(tiny_gguf.parent / "moved.gguf")
    assert surveyed(moved).semantics(None) == before
    assert surveyed(moved, dtype="float32").semantics(None) != before


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"extra": ("blk.0.ffn_gate_exps",)}, "experts merged"),
        ({"extra": ("blk.0.strange",)}, "1 tensors have no place"),
        ({"without": "ffn_up"}, "2 of the model are not in the file"),
    ],
)
def test_files_that_are_not_the_model_one_to_one_are_refused(
    tmp_path: Path, load, more: dict, why: str
) -> None:
    write_gguf_model(tmp_path / "x.gguf", **more)
    with pytest.raises(UserError, match=why):
        load(surveyed(tmp_path / "x.gguf"))


BOS = "tokenizer.ggml.bos_token_id"


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        ({"merges": ["a b", "x yy"]}, "tokenizer in .* `yy` out of vocabulary"),
        ({"merges": ["a b", "cd"]}, "tokenizer in .* expected tuple of length 2"),
        ({"merges": [1, 2]}, "tokenizer in .* 'int' object"),
        ({"special": False, "more": {BOS: 99}}, "tokenizer in .* out of range"),
        ({"special": False, "more": {BOS: "x"}}, "its architecture 'llama' cannot be read"),
        ({"more": {"tokenizer.chat_template": 7}}, "its chat template is 7, which is no text"),
    ],
    ids=["absent", "one", "numbers", "beyond", "text", "template"],
)
def test_a_tokenizer_that_cannot_be_made_is_one_error(
    tmp_path: Path, load, broken: dict[str, Any], why: str
) -> None:
    write_gguf_model(tmp_path / "x.gguf", **broken)
    with pytest.raises(UserError, match=f"(?s){why}") as told:
        load(surveyed(tmp_path / "x.gguf"))
    assert "x.gguf" in str(told.value) and len(str(told.value)) < 600


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("{% for m in %}", "refuses a conversation"),
        ("{{ raise_exception('no') }}", "refuses a conversation of user: no"),
        ("{# #}", "renders nothing"),
    ],
)
def test_a_chat_template_of_a_file_is_an_error_where_it_is_used(
    tmp_path: Path, load, template: str, why: str
) -> None:
    write_gguf_model(tmp_path / "x.gguf", more={"tokenizer.chat_template": template})
    result, _ = load(surveyed(tmp_path / "x.gguf"))
    said = conversation([{"role": "user", "content": "ab"}], "row 0", filled=False)
    with pytest.raises(UserError, match=why):
        list(Tokenizer(result.path / "model").samples([said], 8))


def test_factors_of_scaled_rope_are_warned_about(tmp_path: Path, load) -> None:
    write_gguf_model(tmp_path / "x.gguf", extra=("rope_freqs",))
    _, warnings = load(surveyed(tmp_path / "x.gguf"))
    assert any("rope_freqs" in warning for warning in warnings)


def test_a_scale_that_is_no_number_is_an_error_that_names_the_tensor(tiny_gguf: Path, load) -> None:
    header = read_gguf_header(tiny_gguf)
    tensor = next(t for t in header.tensors.values() if t.type == "Q8_0")
    with tiny_gguf.open("r+b") as file:
        file.seek(tensor.start + 34)  # the second block's scale
        file.write(b"\xff\x7f")
    with pytest.raises(UserError, match=rf"{tensor.name}'?, Q8_0\) has NaN at \[0, 32\]"):
        load(surveyed(tiny_gguf))


def test_a_broken_file_is_one_problem(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF" + bytes(100))
    made = Load(LoadConfig(model=GgufModel(path=str(tmp_path / "x.gguf"))))
    (problem,) = made.survey(View()).problems
    assert "no valid GGUF file" in str(problem)


def test_an_unknown_dtype_is_refused() -> None:
    with pytest.raises(UserError, match="int3"):
        GgufModel(path="x", dtype="int3")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_real_model_equals_what_transformers_reads(real_gguf: Path, load) -> None:
    result, warnings = load(surveyed(real_gguf))
    assert_equal_tensors(result, as_transformers_reads(real_gguf, torch.bfloat16))
    assert not warnings
    found = AutoTokenizer.from_pretrained(result.path / "model")
    expected = AutoTokenizer.from_pretrained(real_gguf.parent, gguf_file=real_gguf.name)
    text = "def f(x):\n    return [x] * 3  # naïve <|im_end|> über\n"
    assert found(text)["input_ids"] == expected(text)["input_ids"]
    assert found.eos_token_id == 2 and found.chat_template
