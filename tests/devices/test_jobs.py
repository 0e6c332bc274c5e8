"""Whole jobs on a GPU that mixes no devices, from config to a checkpoint that is checked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tests.devices.elsewhere import MixedDevicesError, mixing_forbidden
from tests.jobs import Job

SMALL = ("device=cuda", "dataset.num_samples=2", "dataset.sequence_length=32")
FEW = (
    "modifier=rtn",
    "scheme.candidates=[w4a16_asym,w8a16]",
    "scheme.group_sizes=[32]",
    "scheme.budget.bits_per_weight=6",
)
JOBS: dict[str, tuple[str, ...]] = {
    "fp8": ("scheme=fp8", "modifier=rtn"),
    "nvfp4": ("scheme=nvfp4", "modifier=[smoothquant,gptq]"),
    "int8": ("scheme=w8a8", "modifier=gptq", "calibrate.propagate=original"),
    "mse": ("scheme=fp8", "modifier=rtn", "scheme.input_activations.observer=mse"),
    "kv_cache": ("scheme=fp8_dynamic", "modifier=rtn", "kv_cache=fp8"),
    "attention": ("scheme=w4a16", "modifier=rtn", "attention=fp8", "scheme.weights.group_size=32"),
    "lm_head": ("scheme=fp8", "modifier=rtn", "scheme.ignore=[]"),
    "auto": ("scheme=auto", *FEW),
    "forward": ("scheme=auto", "graph=budget_forward", *FEW),
}


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n == "forward" else ()) for n in JOBS],
)
def test_a_job_mixes_no_devices(job: Job, name: str) -> None:
    result = job.run(name, *SMALL, *JOBS[name])
    assert result["verify"]["ok"] is True


def test_an_evaluation_and_generated_text_mix_no_devices(job: Job) -> None:
    data = ["eval=text", f"eval.dataset.path={job.text}", "eval.dataset.num_samples=2"]
    data += ["eval.dataset.sequence_length=32", "eval.max_new_tokens=2", "eval.prompts=[abc]"]
    result = job.run("evaluated", *SMALL, "scheme=nvfp4", "modifier=rtn", "kv_cache=fp8", *data)
    assert result["verify"]["ok"] is True
    assert result["eval"]["perplexity"]["compressed"] > 0


def test_what_a_compressed_model_holds_is_kept(job: Job) -> None:
    job.run("source", *SMALL, "scheme=fp8_dynamic", "modifier=rtn")
    path = f"model.path={job.folder / 'source' / 'checkpoint'}"
    result = job.run("kept", *SMALL, path, "scheme=fp8_dynamic", "modifier=keep")
    assert result["verify"]["ok"] is True


def mixed() -> dict[str, Any]:
    """What a GPU refuses: tensors of two devices, or a loop of the CPU over one of its own."""
    there, here = torch.ones(2, 3, device="cuda"), torch.ones(2, 3)
    return {
        "sum": lambda: there + here,
        "in place": lambda: here.add_(there),
        "product": lambda: torch.nn.functional.linear(there, here),
        "scale of one": lambda: there / torch.ones(1),
        "joined": lambda: torch.cat([there, here]),
        "mask": lambda: here[there.bool()],
        "put": lambda: there.__setitem__(there.bool(), here.flatten()),
        "array": lambda: there.numpy(),
        "moved and back": lambda: there.cpu() + there.to(torch.bfloat16),
    }


def test_the_pretended_gpu_refuses_what_a_gpu_refuses() -> None:
    with mixing_forbidden():
        for name, call in mixed().items():
            with pytest.raises(MixedDevicesError):
                call()
                pytest.fail(name)
        there = torch.arange(6.0, device="cuda").reshape(2, 3)
        assert (there.device.type, there.is_cpu, there.sum().device.type) == ("cuda", False, "cuda")
        for fine in (there * torch.tensor(2.0), there[torch.tensor([1])], there.new_zeros(2)):
            assert fine.is_cuda
        there[:1] = torch.zeros(1, 3)
        assert there.tolist() == [[0.0, 0.0, 0.0], [3.0, 4.0, 5.0]]
        assert there.cpu().numpy().sum() == 12
