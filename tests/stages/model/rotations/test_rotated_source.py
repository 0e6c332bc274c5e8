"""A rotated source reads what explicit matrices make of the tensors, rounded once."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import replace
from math import sqrt

import pytest
import torch
from torch import Tensor

from pipeline.errors import UserError
from stages.compute.hadamard import hadamard
from stages.compute.rotation import RotationSpec
from stages.compute.rotation_steps import RotatedTensors, Step
from stages.model.rotations import rotated_source
from stages.model.rotations.rotated_source import RotatedSource
from stages.weights.source import TensorSpec
from stages.weights.writer import pieces, spec_of

H = hadamard(12) / sqrt(12)
HEAD = hadamard(4) / 2


class Held:
    """Tensors in memory."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        self.tensors = tensors

    def specs(self) -> dict[str, TensorSpec]:
        return {name: spec_of(name, tensor) for name, tensor in self.tensors.items()}

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        return {name: self.tensors[name].to(device) for name in names}


def held(dtype: torch.dtype) -> Held:
    torch.manual_seed(3)
    shapes = {"norm": (12,), "beta": (12,), "q": (8, 12), "o": (12, 8), "o.bias": (12,), "x": (5,)}
    return Held({name: torch.randn(shape).to(dtype) for name, shape in shapes.items()})


ROTATED = RotatedTensors(
    rotations={"R1": RotationSpec(size=12, block=12), "R2": RotationSpec(size=4, block=4)},
    steps={
        "norm": (Step(fill=0.0),),
        "beta": (Step(divide="norm", offset=1.0), Step(rotate="R1")),
        "q": (
            Step(multiply="norm", offset=1.0),
            Step(rotate="R1"),
            Step(rotate="R2", dim=0),
        ),
        "o": (Step(rotate="R1", dim=0), Step(rotate="R2")),
        "o.bias": (Step(rotate="R1"),),
    },
)


def expected(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """By whole matrices: x Q for what is read, Q^T W for what is written."""
    t = {name: tensor.double() for name, tensor in tensors.items()}
    heads = torch.block_diag(HEAD, HEAD)
    return {
        "norm": torch.zeros(12),
        "beta": (t["beta"] / (1 + t["norm"])) @ H,
        "q": heads.T @ (t["q"] * (1 + t["norm"])) @ H,
        "o": H.T @ t["o"] @ heads,
        "o.bias": t["o.bias"] @ H,
        "x": t["x"],
    }


@pytest.mark.parametrize("rows", [1, 1 << 22])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_are_those_of_explicit_matrices(
    dtype: torch.dtype, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rotated_source, "ROWS", rows)
    base = held(dtype)
    plan = RotatedTensors.from_json(json.loads(json.dumps(ROTATED.to_json())))
    assert plan == ROTATED
    source = RotatedSource(base, plan)
    found, wanted = source.read(base.tensors), expected(base.tensors)
    assert list(found) == list(base.tensors) and source.specs() == base.specs()
    for name, tensor in found.items():
        assert tensor.dtype == dtype and tensor.is_contiguous()
        # equal but for values that lie on the edge between two neighbours of the dtype
        near = torch.finfo(dtype).eps * wanted[name].abs().clamp(min=1e-3)
        assert ((tensor.double() - wanted[name]).abs() <= 0.5001 * near * 1.0001).all(), name
        (bytes_there,) = [bytes(piece) for piece in pieces(source, name)]
        assert bytes_there == tensor.view(torch.uint8).numpy().tobytes()
    assert torch.equal(found["x"], base.tensors["x"])


@pytest.mark.parametrize(("period", "start"), [(12, 8), (6, 2)])
def test_some_of_the_outputs_of_a_linear(period: int, start: int) -> None:
    torch.manual_seed(4)
    base = Held({"qkv": torch.randn(12, 5), "qkv.bias": torch.randn(12)})
    step = Step(rotate="R2", dim=0, period=period, start=start)
    plan = RotatedTensors(
        rotations=ROTATED.rotations,
        steps={"qkv": (step,), "qkv.bias": (replace(step, dim=-1),)},
    )
    assert RotatedTensors.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    found = RotatedSource(base, plan).read(base.tensors)
    run = torch.block_diag(torch.eye(start, dtype=torch.float64), HEAD)
    whole = torch.block_diag(*[run] * (12 // period))
    wide = {name: tensor.double() for name, tensor in base.tensors.items()}
    assert torch.allclose(found["qkv"].double(), whole.T @ wide["qkv"], atol=1e-6)
    assert torch.allclose(found["qkv.bias"].double(), wide["qkv.bias"] @ whole, atol=1e-6)


def test_a_bias_of_a_channel_that_its_norm_makes_0_cannot_be_rotated() -> None:
    base = held(torch.float32)
    base.tensors["norm"][3] = -1.0
    with pytest.raises(UserError, match="beta adds to a channel"):
        RotatedSource(base, ROTATED).read(["beta"])
    base.tensors["beta"][3] = 0.0
    assert RotatedSource(base, ROTATED).read(["beta"])["beta"].isfinite().all()
