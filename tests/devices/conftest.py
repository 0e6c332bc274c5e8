"""A GPU that this machine need not have, for whole jobs in this process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.runner import node_builder
from stages.compute.numerics import Numerics
from stages.weights import tensor_content
from tests.devices.elsewhere import mixing_forbidden
from tests.jobs import Job
from tests.pipeline.machine.fake_driver import fake_gpus
from tests.stages.model.tiny import tiny
from tests.stages.tokens.fakes import byte_tokenizer


@pytest.fixture(autouse=True)
def pretended_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`device=cuda` is there; what nodes do on it is done by the CPU, and mixes nothing."""
    run_stage = node_builder.NodeBuilder._run_stage

    def watched(*args: Any) -> Any:
        with mixing_forbidden():
            return run_stage(*args)

    monkeypatch.setattr(node_builder.NodeBuilder, "_run_stage", watched)
    monkeypatch.setattr(Numerics, "apply", lambda self: torch.set_num_threads(self.threads))
    monkeypatch.setattr(tensor_content, "_total", lambda device: 1 << 30)
    monkeypatch.setattr("stages.compute.loops.missing", lambda: "the GPU is pretended")
    monkeypatch.setattr("compressed_tensors.utils.triton.HAS_TRITON", False)
    with fake_gpus(("Pretended", (9, 0), 80 << 30)):
        yield


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory, some_text: Path) -> Job:
    """One store for all jobs of a file: what they have in common is built once."""
    folder = tmp_path_factory.mktemp("devices")
    shape = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2}
    model = tiny("llama", folder / "model", vocab_size=272, dtype=torch.bfloat16, **shape)
    byte_tokenizer().save_pretrained(model.path)
    return Job(folder=folder, model=model.path, text=some_text)
