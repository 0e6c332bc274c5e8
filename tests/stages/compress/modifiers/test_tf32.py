"""Products in TF32: an option of gptq that is part of the key, and that a CPU refuses."""

from __future__ import annotations

import pytest
import torch

from pipeline.errors import UserError
from pipeline.key import canonical
from stages.compress.config import CompressConfig
from stages.compress.modifiers.base import Problem
from stages.compress.modifiers.gptq import Gptq
from stages.compress.sensitivity import SensitivityConfig
from stages.compress.solvers import energy_cache
from stages.compress.solvers.energy_cache import Energies
from stages.compute.numerics import Numerics
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeConfig
from tests.kernels.cases import grid, running
from tests.stages.compress.solvers.reference import problem

SCHEME = SchemeConfig(weights=QArgs(num_bits=4, strategy="group", group_size=32))


def compressing(device: str, solver: Gptq) -> CompressConfig:
    return CompressConfig(scheme=SCHEME, modifiers=(solver,), numerics=Numerics(device=device))


def test_it_is_refused_on_a_cpu_and_taken_on_a_gpu() -> None:
    with pytest.raises(UserError, match="tf32 is true, but the device is cpu") as caught:
        compressing("cpu", Gptq(tf32=True))
    assert "say device=cuda" in str(caught.value)
    for device, solver in (("cpu", Gptq()), ("cuda:1", Gptq(tf32=True))):
        assert compressing(device, solver).modifiers == (solver,)


def test_it_is_refused_where_formats_are_tried_too() -> None:
    scheme = SchemeConfig(weights=SCHEME.weights, solver=Gptq(tf32=True))
    with pytest.raises(UserError, match="tf32 is true, but the device is cpu"):
        SensitivityConfig(scheme=scheme)
    assert SensitivityConfig(scheme=scheme, numerics=Numerics(device="cuda")).solver.kind == "gptq"


def test_it_is_in_the_key_where_it_is_on() -> None:
    before, after = Gptq().semantics(), Gptq(tf32=True).semantics()
    assert before != after
    assert "tf32" not in canonical(Gptq())


def test_it_reaches_the_solver_and_its_energies_are_no_others(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(energy_cache, "KNOWN", Energies())
    weight, H = problem(rows=40, columns=256)
    H = H.contiguous()
    task = Problem(weight=weight, H=H, grid=grid("int4 g32"), global_scale=None, identity=("a",))
    with running("torch"):
        exact, coarse, again = (Gptq(tf32=tf32).solve(task) for tf32 in (False, True, False))
    assert exact.losses is not None and coarse.losses is not None and again.losses is not None
    assert not torch.equal(exact.weight, coarse.weight)
    assert not torch.equal(exact.losses[:, 1], coarse.losses[:, 1])
    assert torch.equal(exact.weight, again.weight) and torch.equal(exact.losses, again.losses)
