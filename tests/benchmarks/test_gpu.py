"""The benchmark for GPUs, in small and on a CPU: what it prepares, compares and says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from tests.benchmarks import gpu, gpu_goals, gpu_schemes
from tests.benchmarks.gpu_peer import Comparison, Setting, Spent, driver_peak, prepare
from tests.benchmarks.gpu_schemes import Row, farthest, jobs
from tests.benchmarks.random_llama import TINY

GB = 10**9


def test_every_scheme_that_rounds_is_tried_with_every_modifier() -> None:
    found = list(jobs())
    assert len(found) == len(set(found)) > 90
    assert {"nvfp4 [rtn]", "fp8 [gptq]", "w4a16_asym [smoothquant,gptq]", "auto"} <= set(found)
    assert not any(job.startswith(("none", "unquantized")) for job in found)
    assert list(jobs(["fp8"])) == ["fp8 [rtn]", "fp8 [gptq]", "fp8 [smoothquant,gptq]"]


def test_the_module_that_differs_most_is_found() -> None:
    cpu = {"a": 0.10, "b": 0.20, "c": None}
    worst, module = farthest({"a": 0.101, "b": 0.206, "c": None}, cpu)
    assert (round(worst, 6), module) == (0.03, "b")
    assert farthest({"a": 0.1, "b": 0.2}, cpu) == (float("inf"), "c")
    assert farthest({"a": None, "b": 0.2, "c": None}, cpu) == (float("inf"), "a")


def test_a_job_is_right_within_two_percent_and_without_a_problem() -> None:
    assert Row(job="a", worst=0.019).ok
    assert not Row(job="a", worst=0.021).ok
    assert not Row(job="a", problem="crash").ok
    told = gpu_schemes.table([Row(job="a", problem="crash"), Row(job="b", worst=0.0)])
    assert told.splitlines()[0].startswith("ok") and "crash" in told.splitlines()[1]
    assert told.endswith("1 of 2 jobs are right")


def test_fewer_layers_are_the_first_of_the_same_model(tmp_path: Path) -> None:
    setting = Setting(work=tmp_path, device="cpu", peer="", shape=TINY, layers=(2, 4), samples=1)
    prepare(setting)
    prepare(setting)
    few, many = tmp_path / "llama-2", tmp_path / "llama-4"
    assert json.loads((few / "config.json").read_text())["num_hidden_layers"] == 2
    index = json.loads((few / "model.safetensors.index.json").read_text())["weight_map"]
    held = set()
    for name in set(index.values()):
        assert (few / name).samefile(many / name)
        with safe_open(few / name, "pt") as file:
            held |= set(file.keys())
    assert held == index.keys()
    assert {name.split(".")[2] for name in held if ".layers." in name} == {"0", "1"}


def spent(seconds: float, device: int = 10 * GB, host: int = 2 * GB) -> Spent:
    return Spent(seconds=seconds, host_bytes=host, device_bytes=device)


MEASURED = Comparison(
    scheme="w4a16",
    layers=(2, 10),
    spent={
        "ours 2": spent(10.0),
        "peer 2": spent(30.0),
        "ours 10": spent(18.0, host=3 * GB),
        "peer 10": spent(62.0, device=9 * GB, host=8 * GB),
    },
    problems={},
)


def test_goals_are_ratios_and_a_layer_is_the_difference_of_two_depths() -> None:
    assert MEASURED.layer_seconds("ours") == 1.0
    found = {goal.what: goal for goal in gpu_goals.goals(MEASURED)}
    layer = found["w4a16: seconds a layer"]
    assert (layer.ratio, layer.met) == (0.25, True)
    assert found["w4a16: whole process"].met
    assert not found["w4a16: device memory"].met
    assert (found["w4a16: host memory"].ratio, found["w4a16: host memory"].met) == (0.375, True)
    assert gpu_goals.table(list(found.values())).count("NOT") == 1


def test_what_was_not_measured_is_not_met() -> None:
    alone = {name: each for name, each in MEASURED.spent.items() if name.startswith("ours")}
    found = list(gpu_goals.goals(replace(MEASURED, spent=alone)))
    assert [goal.met for goal in found] == [False] * 4
    assert gpu_goals.table(found).count("not measured") == 4


def test_a_difference_that_is_only_noise_is_no_measurement() -> None:
    assert gpu_goals.ratio(3.0, -0.7) is None
    assert gpu_goals.ratio(0.0, 2.0) is None


def test_without_a_driver_nothing_is_seen_of_the_device() -> None:
    with driver_peak() as seen:
        pass
    assert seen == []


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_all_parts_run_in_small_on_a_cpu(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "table.txt"
    words = ["--work", str(tmp_path / "work"), "--dry-run", "--seconds", "500", "--out", str(out)]
    parts = ["--part", "schemes", "w4a16", "fp8_dynamic", "--schemes", "nvfp4", "--peer", ""]
    reference = tmp_path / "reference.json"
    assert gpu.main([*words, *parts, "--reference", str(reference)]) == 1  # there is no peer
    text = out.read_text()
    assert "3 of 3 jobs are right" in text and text in capsys.readouterr().out
    assert "w4a16 ours 4" in text and "fp8_dynamic ours 4" in text
    assert text.count("not measured") == 7
    assert set(json.loads(reference.read_text())) == set(jobs(["nvfp4"]))


@pytest.mark.slow
def test_what_does_not_fit_the_time_is_left_out_and_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--work", str(tmp_path), "--dry-run", "--seconds", "-1", "--peer", ""]
    assert gpu.main([*words, "--part", "schemes", "w4a16"]) == 1
    told = capsys.readouterr().out
    assert told.count("not run: no time left") == 6 + 3
