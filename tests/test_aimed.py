"""GPTQ aimed at the original's outputs as a whole job: what it runs, tells and refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.errors import UserError
from pipeline.modes.run import run
from pipeline.registry import Registry
from tests.families.dense import DENSE
from tests.families.experts import EXPERTS
from tests.families.tiny import write
from tests.jobs import Job, built
from tests.pipeline.tiny import composed

LAYERS, LINEARS = 4, 7
AIMED = "modifier=gptaq"


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, some_text: Path) -> Job:
    """One store for all tests: what they have in common is built once."""
    return Job(folder=tmp_path_factory.mktemp("aimed"), model=tiny_llama, text=some_text)


@pytest.fixture(scope="module")
def aimed(job: Job) -> dict[str, Any]:
    return job.run("aimed", AIMED)


def weights(job: Job, name: str) -> dict[str, str]:
    return {n: sha for n, sha in job.checkpoint(name).items() if "safetensors" in n}


def test_every_linear_is_aimed_and_the_report_says_at_what(aimed: dict[str, Any]) -> None:
    assert aimed["status"] == "ok" and aimed["verify"]["ok"]
    assert {row["solver"] for row in aimed["layers"]} == {"gptaq"}
    rows = aimed["aimed"]
    assert len(rows) == LAYERS * LINEARS
    at = {(row["module"].rpartition(".")[2], row["aimed_at"].split(".")[0]) for row in rows}
    assert ("down_proj", "the layer's output") in at and ("q_proj", "its own output") in at
    assert ("o_proj", "the input of model") in at and len(at) == LINEARS
    first = [row["before"] for row in rows if "layers.0.self_attn.q" in row["module"]]
    assert first == [0.0]  # nothing was lost before it
    assert all(0 <= row["after"] < 0.1 for row in rows)
    page = (Path(aimed["checkpoint"]).parent / "report.html").read_text()
    assert "Aimed at the original" in page and "post_attention_layernorm" in page


def test_it_sums_gram_matrices_itself(aimed: dict[str, Any]) -> None:
    nodes = built(aimed)
    assert not any(name.startswith("calibrate") for name in nodes)
    assert {f"reference[{i}]" for i in range(LAYERS - 1)} <= nodes
    assert f"reference[{LAYERS - 1}]" not in nodes
    recipe = (Path(aimed["checkpoint"]) / "recipe.yaml").read_text()
    assert "kind: gptaq" in recipe and "samples: 6" in recipe


@pytest.mark.slow
def test_what_earlier_layers_lost_is_made_up_for(job: Job, aimed: dict[str, Any]) -> None:
    """The last layer's output comes nearer to the original's than with no correction."""
    none = job.run("none", AIMED, "modifier.gptaq.strength=0")
    ends = [
        next(row for row in result["aimed"] if "layers.3.mlp.down" in row["module"])
        for result in (aimed, none)
    ]
    assert ends[0]["after"] < 0.95 * ends[1]["after"]


@pytest.mark.slow
def test_a_fresh_store_gives_the_same_bytes(
    job: Job, aimed: dict[str, Any], tmp_path: Path
) -> None:
    again = Job(folder=tmp_path, model=job.model, text=job.text)
    assert again.run("aimed", AIMED)["aimed"] == aimed["aimed"]
    assert weights(again, "aimed") == weights(job, "aimed")


@pytest.mark.slow
def test_without_a_correction_it_is_gptq_on_later_gram_matrices(job: Job) -> None:
    """The first group of the first layer has what GPTQ has; those after it have other inputs."""
    none = job.run("none", AIMED, "modifier.gptaq.strength=0")
    plain = job.run("gptq", "modifier=gptq")
    errors = [{row["name"]: row["relative_error"] for row in r["layers"]} for r in (none, plain)]
    first = "model.layers.0.self_attn.q_proj"
    assert errors[0][first] == pytest.approx(errors[1][first], rel=1e-4)
    later = "model.layers.1.self_attn.q_proj"
    assert errors[0][later] != errors[1][later]


@pytest.mark.slow
@pytest.mark.parametrize(
    "scheme", ["nvfp4", "mxfp4", "w4a16_asym", "w4a4", "w8a8", "fp8_block", "int8", "w2a16"]
)
def test_it_goes_with_every_kind_of_format(job: Job, scheme: str) -> None:
    result = job.run(scheme, f"scheme={scheme}", AIMED, "dataset.num_samples=24")
    assert result["verify"]["ok"] and len(result["aimed"]) == LAYERS * LINEARS


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("modifier=[smoothquant,gptaq]", "scheme=w8a8"),
        ("modifier=[awq,gptaq]",),
        ("modifier=[spinquant,gptaq]",),
        (AIMED, "calibrate.propagate=original"),
    ],
)
def test_transforms_and_the_original_chain(job: Job, words: tuple[str, ...]) -> None:
    result = job.run("after", *words)
    assert result["verify"]["ok"] and len(result["aimed"]) == LAYERS * LINEARS
    first = next(row for row in result["aimed"] if "layers.0.self_attn.q" in row["module"])
    if "scheme=w8a8" not in words:  # whose inputs are rounded
        assert first["before"] < 1e-9  # the layer computes what it did before the transform


@pytest.mark.slow
@pytest.mark.parametrize("family", ["mixtral", "gemma3n_text", "gpt2", "phi"])
def test_experts_are_solved_by_gptq_and_other_families_run(
    family: str, tmp_path: Path, some_text: Path
) -> None:
    case = next(case for case in (*DENSE, *EXPERTS) if case.name == family)
    job = Job(folder=tmp_path, model=write(case, tmp_path / "model"), text=some_text)
    result = job.run("run", AIMED)
    assert result["verify"]["ok"]
    assert {row["solver"] for row in result["layers"]} == {"gptaq"}
    dense = {row["name"] for row in result["layers"] if ".experts." not in row["name"]}
    assert {row["module"] for row in result["aimed"]} == dense
    assert any(name.startswith("calibrate") for name in built(result)) == (family == "mixtral")


@pytest.mark.slow
def test_learned_rounding_starts_from_it(job: Job, aimed: dict[str, Any]) -> None:
    words = ("modifier=autoround", "modifier.autoround.start=gptaq")
    learned = job.run("learned", *words, "modifier.autoround.iterations=8")
    assert learned["verify"]["ok"] and len(learned["learning"]) == LAYERS
    assert learned["aimed"][:LINEARS] == aimed["aimed"][:LINEARS]  # the first layer starts alike
    assert not any(name.startswith("calibrate") for name in built(learned))
    none = job.run("start", *words, "modifier.autoround.iterations=0")
    assert none["learning"] == [] and none["aimed"] == aimed["aimed"]
    assert weights(job, "start") == weights(job, "aimed")


def test_what_cannot_be_aimed_is_refused(job: Job) -> None:
    given = ["graph=data_free", "model=local", f"model.path={job.model}", "eval=none", AIMED]
    free = load_config(composed(own_configs(), *given, name="config"), Registry.load())
    with pytest.raises(UserError, match="outlines the model from its tensor names"):
        run(free, job.folder)
    with pytest.raises(UserError, match=r"side by side, but nothing gives compress its tokens"):
        job.run("unwired", AIMED, "~graph.nodes.compress.inputs.tokens")
    with pytest.raises(UserError, match=r"corrects weights .* the zeros of 'wanda' too"):
        job.run("pruned", "modifier=[wanda,gptaq]")
    with pytest.raises(UserError, match=r"strength is 1\.5"):
        job.run("strong", AIMED, "modifier.gptaq.strength=1.5")
    with pytest.raises(UserError, match="damping is 0"):
        job.run("bare", AIMED, "modifier.gptaq.damping=0")
