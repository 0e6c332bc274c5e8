"""Chat templates and weights that nothing can be made of: one error that names them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pipeline.errors import UserError
from stages.load.model_folder import look_into
from stages.tokens.tokenizer import Tokenizer


@pytest.fixture
def folder(tmp_path: Path, tiny_llama: Path) -> Path:
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json"):
        shutil.copy(tiny_llama / name, tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("template", "told"),
    [
        ("", "renders nothing of a conversation of user"),
        ("{% if false %}x{% endif %}", "renders nothing of a conversation of user"),
        ("{{ raise_exception('no user') }}", "refuses a conversation of user: no user"),
        ("{% for", "refuses a conversation of user"),
        ("{{ 1 // 0 }}", "refuses a conversation of user"),
        ("{{ messages[7].content.x.y }}", "refuses a conversation of user"),
    ],
)
def test_a_template_that_raises_or_renders_nothing_is_one_error(
    folder: Path, template: str, told: str
) -> None:
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["chat_template"] = template
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    tokenizer = Tokenizer(folder)
    with pytest.raises(UserError, match=told):
        list(tokenizer.samples([[{"role": "user", "content": "hello"}]], 8))


@pytest.mark.parametrize("dtype", ["uint16", "int64", "bool"])
def test_weights_of_integers_without_a_quantization_config_are_told(
    folder: Path, tiny_llama: Path, dtype: str
) -> None:
    for file in tiny_llama.iterdir():
        shutil.copy(file, folder)
    shard = next(path for path in sorted(folder.iterdir()) if path.suffix == ".safetensors")

    with open(shard, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
    shapes = {name: entry["shape"] for name, entry in header.items() if name != "__metadata__"}
    save_file({name: np.ones(shape, dtype) for name, shape in shapes.items()}, shard)
    assert load_file(shard)
    problems = [str(problem) for problem in look_into(folder, code=False).problems]
    assert len(problems) == 1 and ".weight of" in problems[0] and "is stored as" in problems[0]
