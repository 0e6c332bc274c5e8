"""Mixed precision by budget, from sensitivities to a checkpoint, on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.errors import UserError
from pipeline.modes.sensitivity import sensitivity
from pipeline.registry import Registry
from tests.jobs import Job, built
from tests.pipeline.tiny import composed

LAYERS = 4
AUTO = ("scheme=auto", "calibrate.propagate=original", "modifier=rtn")


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, some_text: Path) -> Job:
    return Job(folder=tmp_path_factory.mktemp("auto"), model=tiny_llama, text=some_text)


def measured(job: Job, name: str, *more: str) -> dict[str, Any]:
    """sensitivity.json of a run of mode=sensitivity."""
    given = [w for w in job.overrides("mode=sensitivity", *more) if "weights.group" not in w]
    cfg = composed(own_configs(), *given, name="config")
    target = job.folder / name
    target.mkdir()
    assert sensitivity(load_config(cfg, Registry.load(), overrides=given), target) == 0
    assert (target / "sensitivity.html").is_file()
    found: dict[str, Any] = json.loads((target / "sensitivity.json").read_text())
    return found


def test_sensitivities_choice_and_run_share_what_they_have_in_common(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    found = measured(job, "measured", *AUTO)
    assert "W4A16 g32" in capsys.readouterr().out
    assert [len(layer["modules"]) for layer in found["layers"]] == [7] * LAYERS
    errors = {each["name"]: each["relative_error"] for each in found["candidates"]}
    assert errors["w8a16_g32"] < errors["w4a16_g32"] < errors["w4a16_g128"]

    result = job.run("auto", *AUTO, "scheme.budget.bits_per_weight=5")
    before = ("measure", "calibrate", "forward", "gradient", "sensitivity")
    assert not {n for n in built(result) if n.startswith(before)}
    assert result["choice"]["measure"] == "loss" and 0 < result["choice"]["damage"] < 1
    assert result["verify"]["ok"] is True
    assert 4.8 < result["choice"]["bits_per_weight"] <= 5
    assert len({row["scheme"] for row in result["layers"]}) > 1
    stored = sum(row["bits"] * elements(found, row["name"]) for row in result["layers"])
    whole = sum(elements(found, row["name"]) for row in result["layers"])
    assert stored / whole == pytest.approx(result["choice"]["bits_per_weight"], abs=1e-3)
    assert result["size"]["bits_per_weight"] == pytest.approx(stored / whole)

    scheme = {row["name"]: row["scheme"] for row in result["layers"]}
    for k in range(LAYERS):  # engines run these as one
        attention, mlp = f"model.layers.{k}.self_attn", f"model.layers.{k}.mlp"
        assert len({scheme[f"{attention}.{p}_proj"] for p in "qkv"}) == 1
        assert scheme[f"{mlp}.gate_proj"] == scheme[f"{mlp}.up_proj"]

    again = job.run("again", *AUTO, "scheme.budget.bits_per_weight=5")
    assert built(again) == set()


def test_a_choice_without_a_backward_pass_says_what_it_went_by(job: Job) -> None:
    result = job.run("forward", *AUTO, "graph=budget_forward", "scheme.budget.bits_per_weight=5")
    assert result["choice"]["measure"] == "share"
    assert not {n["name"] for n in result["nodes"] if n["name"].startswith("gradient")}


def elements(found: dict[str, Any], name: str) -> int:
    for layer in found["layers"]:
        if name in layer["modules"]:
            return int(layer["modules"][name]["elements"])
    raise KeyError(name)


def test_a_choice_of_one_format_is_the_work_of_the_uniform_scheme(job: Job) -> None:
    one = ("scheme.candidates=[w4a16_g64]", "scheme.group_sizes=null")
    first = job.run("one", *AUTO, *one)
    uniform = job.run("uniform", "scheme=w4a16_g64", *AUTO[1:])
    layers = {f"compress[{k}]" for k in range(LAYERS)}
    assert layers <= built(first)
    assert not layers & built(uniform)


def test_a_plan_tells_the_choice_once_it_is_made(
    job: Job, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (*AUTO, "scheme.budget.bits_per_weight=7")
    plan(job, *words)
    before = capsys.readouterr().out
    assert "formats are chosen after" in before and "compress[0]" in before
    job.run("planned", *words)
    capsys.readouterr()
    plan(job, *words)
    assert "chosen for" in capsys.readouterr().out


def plan(job: Job, *words: str) -> None:
    from pipeline.modes import plan as mode

    given = job.overrides("mode=plan", "plan.every_node=true", *words)
    given = [word for word in given if "weights.group" not in word]
    cfg = composed(own_configs(), *given, name="config")
    assert mode.plan(load_config(cfg, Registry.load(), overrides=given), job.folder) == 0


def test_a_budget_that_cannot_be_met_names_what_can(job: Job) -> None:
    with pytest.raises(UserError, match=r"4\.13\d* \(lowest\) to 8\.5\d* \(highest\)") as raised:
        job.run("small", *AUTO, "scheme.budget.bits_per_weight=3")
    assert "bits_per_weight is 3" in raised.value.what


def test_without_candidates_or_a_graph_that_chooses_one_error_says_so(job: Job) -> None:
    with pytest.raises(UserError, match="say graph=budget"):
        job.run("elsewhere", *AUTO, "graph=calibrated")
    with pytest.raises(UserError, match="say scheme=auto"):
        job.run("nothing", "scheme=w4a16_g64", "graph=budget", "modifier=rtn")


def test_sensitivities_of_a_graph_without_them_are_refused(job: Job) -> None:
    with pytest.raises(UserError, match="scheme=auto"):
        measured(job, "none", "scheme=w4a16_g64")


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ("modifier=[awq,gptq]", "modifier.awq.n_grid=3"),
        ("modifier=[smoothquant,gptq]", "scheme.candidates=[nvfp4,fp8_dynamic]"),
        ("modifier=gptq", "scheme.candidates=[w8a8,fp8,mxfp4]", "graph=budget_forward"),
        ("modifier=[sparsegpt,gptq]", "modifier.sparsegpt.sparsity=0.5"),
        ("modifier=[spinquant,gptq]",),
        ("modifier=autoround", "modifier.autoround.iterations=2"),
    ],
    ids=" ".join,
)
def test_every_kind_of_modifier_and_candidate_is_tried_chosen_and_verified(
    job: Job, tmp_path: Path, words: tuple[str, ...]
) -> None:
    own = Job(folder=tmp_path, model=job.model, text=job.text)
    result = own.run("run", *AUTO[:2], *words, "scheme.budget.bits_per_weight=6")
    assert result["verify"]["ok"] is True
    assert result["choice"]["bits_per_weight"] <= 6 and len(result["choice"]["counts"]) > 1
