"""vLLM on a CPU loads what presswork writes, and computes what transformers computes from it.

tests/engines/setup_vllm.sh FOLDER && export PRESSWORK_VLLM_PYTHON=FOLDER/bin/python
python -m pytest -m engines
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks.launch import launch, presswork

PYTHON = os.environ.get("PRESSWORK_VLLM_PYTHON", "")
SCRIPT = Path(__file__).with_name("vllm_run.py")
PROMPT = "The capital of France is"
CLOSE = 0.02

pytestmark = [
    pytest.mark.engines,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not PYTHON, reason="PRESSWORK_VLLM_PYTHON is not set: see setup_vllm.sh"),
]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Compress the default model to a scheme; all schemes share a store."""
    place = tmp_path_factory.mktemp("compressed")
    model = os.environ.get("PRESSWORK_TEST_MODEL")
    chosen = ["model=local", f"model.path={model}"] if model else []

    def made(name: str) -> Path:
        scheme, *signed = name.split(" ")
        more = ["modifier.rtn.observer=mse", "modifier.rtn.negative_scales=true"] if signed else []
        run = place / name.replace(" ", "-")
        small = ("dataset.num_samples=4", "dataset.sequence_length=256", "eval=none")
        where = (f"store.dir={place / 'store'}", f"hydra.run.dir={run}")
        launch(presswork(f"scheme={scheme}", "modifier=rtn", *more, *chosen, *small, *where))
        return run / "checkpoint"

    return made


def english(tokenizer: object, count: int = 4, length: int = 256) -> list[list[int]]:
    """Windows of the language reference that comes with Python."""
    from pydoc_data.topics import topics

    text = "\n".join(topics[name] for name in sorted(topics) if len(topics[name]) > 2000)
    ids = tokenizer(text[: count * length * 8])["input_ids"]  # type: ignore[operator]  # callable
    return [ids[start : start + length] for start in range(0, count * length, length)]


def perplexity_in_transformers(folder: Path, rows: list[list[int]]) -> float:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16).eval()
    losses = []
    with torch.inference_mode():
        for row in rows:
            ids = torch.tensor([row])
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1].float()
            losses.append(torch.nn.functional.cross_entropy(logits, ids[0, 1:], reduction="none"))
    return math.exp(torch.cat(losses).double().mean().item())


@pytest.mark.parametrize("scheme", ["w4a16_g64", "w4a16_g64 signed", "w8a8", "fp8_dynamic"])
def test_vllm_computes_what_transformers_computes(
    scheme: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    from transformers import AutoTokenizer

    folder = checkpoint(scheme)
    rows = english(AutoTokenizer.from_pretrained(folder))
    assert [len(row) for row in rows] == [256] * 4
    tokens = tmp_path / "tokens.json"
    tokens.write_text(json.dumps(rows), encoding="utf-8")
    output = launch([PYTHON, str(SCRIPT), str(folder), str(tokens), PROMPT], sampling=0.5).output
    (line,) = [text for text in output.splitlines() if text.startswith('{"perplexity"')]
    found = json.loads(line)
    expected = perplexity_in_transformers(folder, rows)
    assert found["perplexity"] == pytest.approx(expected, rel=CLOSE)
    assert found["text"].strip()
