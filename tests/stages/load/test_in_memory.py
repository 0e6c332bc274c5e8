"""Models given to a call from Python: short texts, and objects saved with their tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

from pipeline.errors import UserError
from stages.load.in_memory import saved
from stages.load.local import LocalModel
from tests.stages.tokens.fakes import byte_tokenizer


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1}
    return AutoModelForCausalLM.from_config(
        LlamaConfig(**sizes, num_attention_heads=1, vocab_size=300)
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("llama3_8b", {"model": "llama3_8b"}),
        ("org/name", {"model": "hub", "model.id": "org/name"}),
        ("/x/a.gguf", {"model": "gguf", "model.path": Path("/x/a.gguf")}),
    ],
)
def test_a_text_is_an_option_a_repository_or_a_file(
    text: str, found: dict[str, Any], tmp_path: Path
) -> None:
    assert saved("model", {"model": text}, tmp_path) == found


def test_a_folder_comes_before_a_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    found = saved("model", {"model": "org/name"}, tmp_path)
    assert found == {"model": "local", "model.path": tmp_path / "org" / "name"}


def test_an_object_is_saved_and_its_weights_are_its_identity(model: Any, tmp_path: Path) -> None:
    def identity(name: str) -> str | None:
        arguments = {"model": model, "processor": byte_tokenizer()}
        found = saved("model", arguments, tmp_path / name)
        assert saved("processor", arguments, tmp_path / name) == {}
        assert found is not None
        return LocalModel(path=str(found["model.path"])).look(mode="run").facts.identity

    first, again = identity("a"), identity("b")
    with torch.no_grad():
        model.lm_head.weight[0, 0] += 1
    assert first is not None and first == again != identity("c")
    assert (tmp_path / "a" / "model" / "tokenizer.json").is_file()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"model": Path("/no/such")}, "there is no folder /no/such"),
        ({"model": "./nowhere"}, "there is no folder"),
        ({"model": "llama3_8b", "processor": 1}, "no model object"),
    ],
)
def test_what_is_no_model_is_refused(arguments: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        for name in arguments:
            saved(name, arguments, tmp_path)


def test_weights_that_are_not_in_memory_are_refused(model: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not in memory"):
        saved("model", {"model": model.to("meta")}, tmp_path)
