"""result.json: what it is assembled from and what callers may rely on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.report.record import RunRecord
from pipeline.report.result import Conflict, assemble, merge
from tests.pipeline.machine.fake_driver import MODELS, fake_gpus
from tests.pipeline.report.sample import node, sample_run


def run_of(*nodes: object, **given: object) -> RunRecord:
    facts: dict[str, object] = {
        "run_dir": Path("run"),
        "status": "ok",
        "nodes": nodes,
        "config": {},
        "plan": [],
        "started": 1000.0,
        "seconds": 3.0,
    }
    return RunRecord(**{**facts, **given})  # type: ignore[arg-type]  # a test's shorthand


def test_every_promised_section_is_there_even_when_no_stage_spoke() -> None:
    result = assemble(run_of())
    assert result["schema"] == 1
    for name in ("nodes", "layers", "fallbacks", "warnings"):
        assert result[name] == []
    for name in ("size", "eval", "verify"):
        assert result[name] == {}
    assert result["checkpoint"] is None
    assert result["versions"]["python"]


def test_it_is_plain_json(tmp_path: Path) -> None:
    result = assemble(sample_run(tmp_path))
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_fragments_of_layers_concatenate_in_graph_order(tmp_path: Path) -> None:
    names = [row["name"] for row in assemble(sample_run(tmp_path, layers=12))["layers"]]
    assert len(names) == 12 * 7
    assert names[0] == "model.layers.0.self_attn.q_proj"
    assert names[-1] == "model.layers.11.mlp.down_proj"


@pytest.mark.parametrize(
    ("status", "shown"), [("built", "built"), ("hit", "hit"), ("waited", "hit"), ("idle", "hit")]
)
def test_a_node_is_built_here_or_a_hit(status: str, shown: str) -> None:
    (row,) = assemble(run_of(node("load", status=status, metas=({},))))["nodes"]
    assert row["status"] == shown
    assert row["kind"] == "load"
    assert len(row["key"]) == 64


def test_a_node_that_nothing_needed_and_that_has_no_result_is_left_out() -> None:
    result = assemble(run_of(node("save"), node("propagate[29]", 0.0, status="idle")))
    assert [row["name"] for row in result["nodes"]] == ["save"]
    assert result["reuse"]["hits"] == 0


def test_reuse_counts_what_the_hits_took_when_they_were_built() -> None:
    nodes = (
        node("load", 0.1, status="hit", recorded_seconds=2.5),
        node("calibrate[0]", 0.0, status="idle", recorded_seconds=4.0, metas=({},)),
        node("save", 1.0, recorded_seconds=1.0),
    )
    assert assemble(run_of(*nodes))["reuse"] == {"hits": 2, "seconds_saved": 6.5}


def test_warnings_kept_with_a_result_are_told_again_on_a_hit_and_only_once() -> None:
    metas = ({"warnings": ["clipped"]}, {"warnings": ["clipped"]})
    result = assemble(run_of(node("save", status="hit", metas=metas), warnings=("disk",)))
    assert result["warnings"] == ["disk", "save: clipped"]


def test_a_check_that_could_not_be_done_is_not_passed_over(tmp_path: Path) -> None:
    assert assemble(sample_run(tmp_path))["not_checked"] == [
        "loads in vLLM: vLLM is not installed here"
    ]


def test_fragments_that_disagree_are_an_error() -> None:
    merged = {"size": {"bits_per_weight": 4.25}}
    merge(merged, {"size": {"bits_per_weight": 4.25, "original_bytes": 10}})
    assert merged == {"size": {"bits_per_weight": 4.25, "original_bytes": 10}}
    with pytest.raises(Conflict, match="bits_per_weight"):
        merge(merged, {"size": {"bits_per_weight": 8.0}})
    with pytest.raises(Conflict, match="size"):
        merge(merged, {"size": ["not", "a", "mapping"]})


def test_a_node_tells_its_device_memory_and_null_without_a_gpu(tmp_path: Path) -> None:
    run = sample_run(tmp_path)
    nodes = (replace(run.nodes[0], peak_device_bytes=5), *run.nodes[1:])
    told = [node["peak_device_bytes"] for node in assemble(replace(run, nodes=nodes))["nodes"]]
    assert (told[0], set(told[1:])) == (5, {None})


def test_the_gpu_and_its_driver_are_among_the_versions(tmp_path: Path) -> None:
    run = replace(sample_run(tmp_path), config={"device": "cuda:1"})
    with fake_gpus(*MODELS):
        assert assemble(run)["versions"]["gpu"] == "NVIDIA A100, sm_80"
        assert "gpu" not in assemble(sample_run(tmp_path))["versions"]
