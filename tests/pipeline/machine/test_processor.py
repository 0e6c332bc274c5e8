"""The signature of the processor: fast, of the system alone, and in keys of what sums only."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.graph import Graph, Node, Ref
from pipeline.machine import processor as module
from pipeline.planning.elsewhere import elsewhere_note, stored_elsewhere, sums
from pipeline.planning.plan import make_plan
from pipeline.store import Store
from pipeline.store.config import StoreConfig
from pipeline.store.processors import note_processor, noted_processors

INTEL = """processor\t: 0
vendor_id\t: GenuineIntel
cpu family\t: 6
model\t\t: 85
flags\t\t: fpu sse2 avx2 ht avx512f fma
bogomips\t: 4600

processor\t: 1
vendor_id\t: Other
"""
ARM = "processor\t: 0\nFeatures\t: sve asimd\nCPU implementer\t: 0x41\nCPU part\t: 0xd40\n"


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (INTEL, "GenuineIntel 6-85 avx2 avx512f fma sse2"),
        (ARM, " 0x41-0xd40 asimd sve"),
        ("", ""),
    ],
)
def test_the_signature_is_of_the_first_processor(
    text: str, end: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "cpuinfo").write_text(text)
    monkeypatch.setattr(module, "_CPUINFO", tmp_path / "cpuinfo")
    for name in module._VARIABLES:
        monkeypatch.delenv(name, raising=False)
    found = module.processor.__wrapped__()
    assert found and found.endswith(end)
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    assert module.processor.__wrapped__() == f"{found} ATEN_CPU_CAPABILITY=avx2"


def test_another_process_finds_the_same_without_a_library() -> None:
    code = (
        "import sys; from pipeline.machine.processor import processor; print(processor());"
        "print({'torch', 'numpy', 'numba', 'scipy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [module.processor(), "set()"]


def node(name: str, device: str, *inputs: str) -> Node:
    return Node(
        name=name,
        site=name,
        kind=name,
        version=1,
        params={"config": {"numerics": {"device": device}}, "libraries": {}},
        inputs={source: Ref(node=source, output="out") for source in inputs},
        outputs=("out",),
    )


def graph_of(device: str) -> Graph:
    nodes = [node("load", "cpu"), node("sum", device, "load"), node("save", "cpu", "sum")]
    return Graph.of(nodes, [Ref(node="save", output="out")])


def test_what_another_processor_computed_is_counted_and_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "processor", lambda: "Mine 1-2 avx2")
    monkeypatch.setattr("pipeline.planning.elsewhere.processor", lambda: "Mine 1-2 avx2")
    theirs, graph = graph_of("cpu, Theirs 3-4"), graph_of("cpu, Mine 1-2 avx2")
    stored = set(theirs.keys.values())
    plan = make_plan(graph, stored.__contains__)
    assert [step.node.name for step in plan.building()] == ["sum", "save"]
    others = ["Mine 1-2 avx2", "Theirs 3-4", "Unknown 5-6"]
    assert stored_elsewhere(plan, others, stored.__contains__) == {"Theirs 3-4": 2}
    (note,) = elsewhere_note(plan, others, stored.__contains__)
    assert note.startswith("2 of the nodes to run are stored as Theirs 3-4 computed them")
    straight = graph_of("cpu")
    assert sums(graph) and not sums(straight)
    assert stored_elsewhere(make_plan(straight, set().__contains__), others, bool) == {}


def test_a_store_knows_its_processors(tmp_path: Path) -> None:
    store = Store(StoreConfig(dir=str(tmp_path / "store")))
    assert noted_processors(store.layout) == []
    for signature in ("b 1-2", "a 1-2", "b 1-2"):
        note_processor(store.layout, signature)
    assert noted_processors(store.layout) == ["a 1-2", "b 1-2"]
    assert list(store.layout.keys()) == [] and store.verify() == []
