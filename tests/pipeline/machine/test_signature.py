"""Signatures of processes, and the variables that workers get."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.machine.processor import processor
from pipeline.machine.signature import code_digest, differences, signature
from pipeline.machine.variables import handed_on
from pipeline.runner.workers.process import only_gpu


def test_a_signature_has_code_versions_builds_and_processor() -> None:
    found = signature(["pipeline", "stages"], ["transformers"], "cpu")
    assert found["processor"] == processor() and found["transformers"]
    assert len(found["code of stages"]) == len(found["torch/version.py"]) == 64
    assert "GPU" not in found and differences(found, found) == []


def test_what_differs_is_named() -> None:
    here = {"torch": "2.10.0", "processor": "AMD 25-1 avx2 fma", "code of stages": "a" * 64}
    there = {"torch": "2.9.1", "processor": "AMD 26-2 avx2 fma avx512f", "code of stages": "b" * 64}
    assert differences(here, there) == [
        "torch is 2.9.1, not 2.10.0",
        "processor lacks 25-1 and has 26-2 avx512f more",
        "code of stages differs",
    ]
    assert differences({}, {"jax": "1.0"}) == ["jax is 1.0, not none"]


def test_a_changed_line_of_code_changes_the_digest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "some_package_of_a_test"
    package.mkdir()
    (package / "__init__.py").write_text("x = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = code_digest(package.name)
    (package / "__init__.py").write_text("x = 2\n")
    assert before != code_digest(package.name) != code_digest("no_such_package")


def test_workers_get_no_tokens_and_no_variables_beyond_the_list() -> None:
    kept = {"PATH": "/bin", "OMP_NUM_THREADS": "2", "LC_ALL": "C", "PYTHONPATH": "x"}
    others = {"HF_TOKEN": "t", "AWS_SECRET_ACCESS_KEY": "s", "PYTHON_API_KEY": "k", "EDITOR": "vi"}
    assert handed_on({**kept, **others}) == kept


@pytest.mark.parametrize(
    ("device", "visible", "seen"),
    [
        ("cuda:1", None, {"CUDA_VISIBLE_DEVICES": "1"}),
        ("cuda:1", "4,GPU-ab", {"CUDA_VISIBLE_DEVICES": "GPU-ab"}),
        ("cpu", "4,5", {}),
    ],
)
def test_a_worker_sees_one_gpu(device: str, visible: str | None, seen: dict[str, str]) -> None:
    environment = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert only_gpu(device, environment) == seen
