"""Jobs whose transforms search: AWQ and SmoothQuant's strength, with solvers and schemes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.jobs import Job, built
from tests.test_smoothing_jobs import job as family_job

SLOW = [
    ("scheme=w8a8", "modifier=[awq,gptq]"),
    ("scheme=w8a8", "modifier=[smoothquant,gptq]", "modifier.smoothquant.smoothing_strength=auto"),
    ("scheme=w8a8", "modifier=[log_equalization,gptq]"),
    ("scheme=nvfp4", "modifier=[awq,gptq]", "modifier.awq.duo_scaling=both"),
    ("scheme=nvfp4", "modifier=[awq,rtn]", "modifier.awq.observer=mse"),
    ("scheme=fp8", "modifier=[awq,rtn]", "modifier.awq.n_grid=5"),
    ("scheme=fp8_block", "modifier=[awq,rtn]", "modifier.awq.n_grid=5"),
    ("scheme=mxfp4", "modifier=[awq,rtn]", "modifier.awq.n_grid=5"),
    ("modifier=[awq,sparsegpt,gptq]", "modifier.sparsegpt.sparsity=0.5"),
    ("modifier=[smoothquant,awq,rtn]",),
]


@pytest.fixture
def job(tmp_path: Path, tiny_llama: Path, some_text: Path) -> Job:
    return Job(folder=tmp_path, model=tiny_llama, text=some_text)


def test_awq_and_gptq_share_a_calibration(job: Job) -> None:
    result = job.run("run", "modifier=[awq,gptq]", "modifier.awq.n_grid=4")
    assert result["verify"]["ok"] is True
    assert {row["solver"] for row in result["layers"]} == {"gptq"}
    rows = result["searched"]
    assert {row["modifier"] for row in rows} == {"awq"}
    names = {row["name"].removeprefix("model.layers.0.") for row in rows if ".0." in row["name"]}
    assert names == {
        *("input_layernorm", "post_attention_layernorm", "self_attn.v_proj", "mlp.up_proj")
    }
    assert all(row["error"] <= row["error_before"] for row in rows)
    page = (job.folder / "run" / "report.html").read_text(encoding="utf-8")
    assert "Factors that were searched for" in page
    again = job.run("again", "modifier=[awq,gptq]", "modifier.awq.n_grid=4")
    assert built(again) == set()


@pytest.mark.slow
@pytest.mark.parametrize("words", SLOW, ids=" ".join)
def test_every_combination_is_written_and_verified(job: Job, words: tuple[str, ...]) -> None:
    result = job.run("run", *words)
    assert result["verify"]["ok"] is True
    searched = result.get("searched", [])
    assert bool(searched) == ("log_equalization" not in " ".join(words))
    assert all(row["error"] <= row["error_before"] for row in searched)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mixtral", "qwen2_moe", "deepseek_v3", "phi3", "gemma2"])
def test_pairs_of_other_families(name: str, tmp_path: Path) -> None:
    made = family_job(name, tmp_path)
    result = made.run("run", "scheme=w8a8", "modifier=[awq,rtn]", "modifier.awq.n_grid=3")
    assert result["verify"]["ok"] is True and result["searched"]
