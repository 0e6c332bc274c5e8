"""Jobs whose solver was asked for scales of either sign: right in every reader, less error."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from tests.families.unpack import tensors_of, unpack
from tests.jobs import Job


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, some_text: Path) -> Job:
    return Job(folder=tmp_path_factory.mktemp("signed"), model=tiny_llama, text=some_text)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("gptq", ()),
        pytest.param("rtn", ("modifier.rtn.observer=gram",), marks=pytest.mark.slow),
        pytest.param("autoround", (), marks=pytest.mark.slow),
    ],
)
def test_they_pass_all_checks_and_load(job: Job, kind: str, words: tuple[str, ...]) -> None:
    plain = job.run(f"plain-{kind}", f"modifier={kind}", *words)
    name = f"signed-{kind}"
    result = job.run(name, f"modifier={kind}", *words, f"modifier.{kind}.negative_scales=true")
    assert result["verify"]["ok"] is True
    assert result["engines"]["transformers"]["loads"] is True
    checkpoint = job.folder / name / "checkpoint"
    scales = [t for n, t in tensors_of(checkpoint).items() if n.endswith("weight_scale")]
    assert all(bool((scale < 0).any()) and bool((scale != 0).all()) for scale in scales)
    before, after = (sum(row["relative_error"] for row in r["layers"]) for r in (plain, result))
    assert after < 0.95 * before
    ours = unpack(checkpoint)
    loaded = AutoModelForCausalLM.from_pretrained(
        checkpoint, quantization_config=CompressedTensorsConfig(run_compressed=False)
    ).state_dict()
    for module in ours.modules:
        weight = ours.tensors[f"{module}.weight"]
        assert torch.equal(loaded[f"{module}.weight"].float(), weight.to(torch.bfloat16).float())
