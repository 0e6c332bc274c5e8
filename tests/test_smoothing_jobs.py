"""SmoothQuant jobs on models of many kinds: norms change, or the job is refused before it runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.errors import UserError
from tests.families.case import Case
from tests.families.dense import DENSE
from tests.families.experts import EXPERTS
from tests.families.hybrid import HYBRID
from tests.families.tiny import write
from tests.families.unpack import tensors_of
from tests.jobs import Job, built

CASES: dict[str, Case] = {case.name: case for case in (*DENSE, *EXPERTS, *HYBRID)}
SMOOTH = ("scheme=w8a8", "modifier=[smoothquant,rtn]")
SLOW = ("falcon", "phi", "glm4", "gpt_neox", "opt", "gemma2", "qwen3_5_text", "glm4_moe", "gpt_oss")


def job(name: str, folder: Path) -> Job:
    text = folder / "text.txt"
    text.write_text("The quick brown fox jumps over the lazy dog. " * 400)
    return Job(folder=folder, model=write(CASES[name], folder / "model"), text=text)


@pytest.mark.parametrize(
    "name", ["cohere", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]
)
def test_norms_of_every_layer_change(name: str, tmp_path: Path) -> None:
    made = job(name, tmp_path)
    result = made.run("smoothed", *SMOOTH)
    before = tensors_of(made.model)
    after = tensors_of(tmp_path / "smoothed" / "checkpoint")
    changed = {key for key, tensor in before.items() if key in after and tensor.dim() == 1}
    changed = {key for key in changed if not before[key].equal(after[key])}
    kinds = result["pairs"]["kinds"]
    layers = [name for kind in kinds for name in kind["layers"]]
    assert len(layers) == 4
    for kind in kinds:
        for pair in kind["pairs"]:
            for layer in kind["layers"]:
                assert f"{layer}.{pair['source']}.weight" in changed or "proj" in pair["source"]
    assert "pairs" in built(result)
    assert "pairs" not in built(made.run("again", *SMOOTH, "modifier.smoothquant.pairs=[linear]"))


def test_without_a_transform_no_pairs_are_proven(tmp_path: Path) -> None:
    made = job("olmo2", tmp_path)
    assert "pairs" not in built(made.run("rounded", "scheme=w8a8", "modifier=rtn"))
    with pytest.raises(UserError, match="'smoothquant' would do nothing: olmo2 has no pairs") as no:
        made.run("smoothed", *SMOOTH)
    assert "norm (a norm whose output only Linears and routers read)" in no.value.what
