"""Jobs with a pruner: zeros in the checkpoint, in the pattern, whatever solver comes after."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import Tensor

from pipeline.errors import UserError
from tests.families.unpack import tensors_of, unpack
from tests.jobs import Job, built

PATTERNED = ("w4a16_g64", "nvfp4", "w8a8")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, some_text: Path) -> Job:
    return Job(folder=tmp_path_factory.mktemp("pruned"), model=tiny_llama, text=some_text)


def weights(job: Job, name: str) -> dict[str, Tensor]:
    """The dense weights of all compressed modules of a run, unpacked without our code."""
    found = unpack(job.folder / name / "checkpoint")
    return {module: found.tensors[f"{module}.weight"] for module in found.modules}


@pytest.mark.parametrize(
    ("modifiers", "scheme"),
    [
        ("sparsegpt,gptq", "w4a16_g64"),
        pytest.param("wanda,gptq", "nvfp4", marks=pytest.mark.slow),
        pytest.param("smoothquant,sparsegpt,rtn", "w8a8", marks=pytest.mark.slow),
        ("magnitude,rtn", "w4a16_g64"),
    ],
)
def test_two_of_every_four_weights_are_zero(job: Job, modifiers: str, scheme: str) -> None:
    kind = modifiers.split(",")[-2]
    group = ("scheme.weights.group_size=32",) if scheme == "w4a16_g64" else ()
    words = (f"scheme={scheme}", *group, f"modifier=[{modifiers}]")
    result = job.run(f"{kind}-{scheme}", *words, f"modifier.{kind}.mask_structure=2:4")
    assert result["verify"]["ok"] is True
    assert all(row["zeros"] >= 0.5 for row in result["layers"])
    assert len(result["layers"]) == 28
    for weight in weights(job, f"{kind}-{scheme}").values():
        zeros = (weight == 0).reshape(len(weight), -1, 4).sum(dim=-1)
        assert bool((zeros >= 2).all())
        assert float(zeros.float().mean()) < 3  # rounding adds some, not all


@pytest.mark.slow
def test_solvers_share_the_calibration_with_a_pruner(job: Job) -> None:
    shared = ("scheme=w8a16", "calibrate.propagate=original")
    job.run("alone", *shared)
    again = job.run("after", *shared, "modifier=[wanda,gptq]")
    assert not any(name.startswith(("calibrate", "propagate")) for name in built(again))


@pytest.mark.slow
@pytest.mark.parametrize("propagate", ["compressed", "original"])
def test_owl_gives_layers_their_own_shares_of_zeros(job: Job, propagate: str) -> None:
    words = ("scheme=w8a16", f"calibrate.propagate={propagate}", "modifier=[wanda,gptq]")
    owl = ("modifier.wanda.sparsity_profile=owl", "modifier.wanda.owl_m=3")
    name = f"owl-{propagate}"
    result = job.run(name, *words, *owl, "modifier.wanda.sparsity=0.6")
    assert result["verify"]["ok"] is True and "owl" in {n["name"] for n in result["nodes"]}
    zeros: dict[str, list[float]] = {}
    for module, weight in weights(job, name).items():
        zeros.setdefault(module.split(".")[2], []).append(float((weight == 0).float().mean()))
    by_layer = [sum(found) / len(found) for found in zeros.values()]
    assert sum(by_layer) / len(by_layer) == pytest.approx(0.6, abs=0.02)
    assert max(by_layer) - min(by_layer) == pytest.approx(0.16, abs=0.03)


def test_constant_keeps_the_zeros_of_a_model_that_was_pruned_before(job: Job) -> None:
    pruned = ("scheme=w8a16", "modifier=[magnitude,rtn]", "save.compressed=false")
    job.run("dense", *pruned)
    there = tensors_of(job.folder / "dense" / "checkpoint")
    model = f"model.path={job.folder / 'dense' / 'checkpoint'}"
    words = ("scheme=w4a16_g64", "scheme.weights.group_size=32", model)
    result = job.run("kept", *words, "modifier=[constant,gptq]")
    kept = weights(job, "kept")
    zeros = {name: there[f"{name}.weight"] == 0 for name in kept}
    assert all(float(zeros[name].float().mean()) >= 0.5 for name in kept)
    assert not any(bool(kept[name][zeros[name]].any()) for name in kept)
    assert {row["solver"] for row in result["layers"]} == {"gptq"}


def test_a_plan_says_what_zeros_are_good_for(job: Job, capsys: pytest.CaptureFixture[str]) -> None:
    job.plan("scheme=w8a16", "modifier=wanda")
    told = " ".join(capsys.readouterr().out.split())
    assert "wanda makes no checkpoint smaller" in told
    assert "no solver is named: after wanda weights are rounded to nearest" in told


def test_pruning_without_a_scheme_for_weights_is_refused(job: Job) -> None:
    with pytest.raises(
        UserError, match="'wanda' would do nothing: the scheme quantizes no weights"
    ):
        job.run("nothing", "scheme=none", "modifier=wanda")
