"""Layers that are compressed in parts: the same bytes and report, from nodes of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.store import Store, StoreConfig
from tests.jobs import Job, built
from tests.test_experts import saved

PARTS = "graph.nodes.compress.params.part_parameters"
GPTQ = ("calibrate.propagate=original", "modifier=gptq", "verify.loader=none")


def compressed(job: Job, result: dict[str, Any]) -> dict[str, dict[str, bytes]]:
    """The files of each layer's result, without the manifest."""
    store = Store(StoreConfig(dir=str(job.folder / "store")))
    found = {}
    for node in result["nodes"]:
        if node["name"].startswith("compress["):
            artifact = store.get(node["key"])
            assert artifact is not None
            names = ("shard.safetensors", "checksum.safetensors", "layer.json")
            found[node["name"]] = {name: (artifact.path / name).read_bytes() for name in names}
    return found


def in_parts(job: Job, size: int, *more: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Results of a run in one piece and of one in parts, which have the same bytes."""
    whole = job.run("whole", *more)
    parts = job.run("parts", *more, f"{PARTS}={size}")
    assert compressed(job, whole) == compressed(job, parts)
    whole_files, files = job.checkpoint("whole"), job.checkpoint("parts")
    assert {n for n in whole_files if whole_files[n] != files[n]} == {"provenance.json"}  # keys
    assert files.keys() == whole_files.keys()
    assert whole["layers"] == parts["layers"]
    assert whole["fallbacks"] == parts["fallbacks"]
    return whole, parts


def test_a_layer_in_parts_has_the_bytes_of_a_whole_one(
    tmp_path: Path, tiny_llama: Path, some_text: Path
) -> None:
    job = Job(folder=tmp_path, model=tiny_llama, text=some_text)
    _, parts = in_parts(job, 1, *GPTQ)  # a node for each group that engines run as one
    names = built(parts)
    assert {f"compress.parts[0.{n}]" for n in range(4)} <= names  # q/k/v, o, gate/up, down
    assert "compress.parts[0.4]" not in names and "compress[0]" in names
    assert "calibrate[0]" not in names  # of the first run: its statistics are the same


@pytest.mark.slow
@pytest.mark.parametrize(
    "more",
    [
        ("scheme=nvfp4", "modifier=gptq"),
        ("scheme=fp8_dynamic", "modifier=rtn"),
        ("scheme=w4a16_asym", "modifier=gptq"),
        ("scheme=int8", "modifier=gptq"),
        ("modifier=[wanda,gptq]",),
    ],
    ids=" ".join,
)
def test_other_formats_and_solvers_too(
    tmp_path: Path, tiny_llama: Path, some_text: Path, more: tuple[str, ...]
) -> None:
    job = Job(folder=tmp_path, model=tiny_llama, text=some_text)
    in_parts(job, 1, *more, "verify.loader=none")


@pytest.mark.slow
def test_experts_some_at_a_time(tmp_path: Path, some_text: Path) -> None:
    model = saved("deepseek_v3", tmp_path / "model")
    job = Job(folder=tmp_path, model=model.folder, text=some_text)
    _, parts = in_parts(job, 10_000, *GPTQ)
    assert any(name.startswith("compress.parts[1.2") for name in built(parts))


@pytest.mark.slow
def test_parts_that_two_workers_build(tmp_path: Path, tiny_llama: Path, some_text: Path) -> None:
    jobs = [
        Job(folder=tmp_path / name, model=tiny_llama, text=some_text) for name in ("one", "two")
    ]
    for job in jobs:
        job.folder.mkdir()
    whole = jobs[0].run("run", "modifier=gptq", "verify.loader=none")
    spread = ("runner.devices=[cpu,cpu]", f"{PARTS}=1")
    parts = jobs[1].run("run", "modifier=gptq", "verify.loader=none", *spread)
    assert compressed(jobs[0], whole) == compressed(jobs[1], parts)
    rows = [node for node in parts["nodes"] if node["name"].startswith("compress.parts[")]
    assert rows and {row["worker"] for row in rows} <= {"cpu#0", "cpu#1"}


def test_what_looks_at_a_whole_layer_is_refused_in_parts(
    tmp_path: Path, tiny_llama: Path, some_text: Path
) -> None:
    job = Job(folder=tmp_path, model=tiny_llama, text=some_text)
    with pytest.raises(UserError, match="smoothquant looks at a layer as a whole"):
        job.plan("modifier=[smoothquant,gptq]", f"{PARTS}=1")
    with pytest.raises(UserError, match=r"part_parameters.* is 0"):
        job.plan(f"{PARTS}=0")
    outside = PARTS.replace("compress", "compress_outside")
    with pytest.raises(UserError, match="only decoder layers have parts"):
        job.plan(f"+{outside}=1")
