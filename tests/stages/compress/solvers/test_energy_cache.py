"""Energies are computed once for jobs that differ in their format, and change no byte."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stages.compress.grid import Quantized, grid_of
from stages.compress.modifiers.base import Problem
from stages.compress.modifiers.gptq import Gptq
from stages.compress.modifiers.smoothquant import SmoothQuant
from stages.compress.solvers import energy_cache as energies
from stages.compress.solvers import gptq
from stages.compress.solvers.energy_cache import Energies
from stages.compress.stage import CompressConfig
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import SchemeConfig
from tests.stages.compress.layers import compress
from tests.stages.compress.solvers.reference import int4, problem
from tests.stages.model.tiny import tiny

G16 = SchemeConfig(weights=QArgs(num_bits=4, strategy="group", group_size=16))


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The rows of every tile whose energy is computed, with nothing known at the start."""
    rows: list[int] = []
    own = gptq.weight_energies

    def counted(w: Tensor, *given: Any, tf32: bool) -> Tensor:
        rows.append(w.shape[1])
        return own(w, *given, tf32=tf32)

    monkeypatch.setattr(gptq, "weight_energies", counted)
    monkeypatch.setattr(energies, "KNOWN", Energies())
    return rows


def _solved(group_size: int, *identity: str, solver: Gptq | None = None) -> Quantized:
    weight, H = problem(rows=300)
    given = Problem(
        weight=weight,
        H=H,
        grid=grid_of(int4(group_size)),
        global_scale=None,
        identity=identity or None,
    )
    return (solver or Gptq()).solve(given)


def test_another_group_size_needs_no_new_energy_and_gets_the_same_bytes(
    computed: list[int],
) -> None:
    _solved(32, "weights", "gram", "q_proj")
    assert sum(computed) == 300
    found = _solved(64, "weights", "gram", "q_proj")
    assert sum(computed) == 300
    alone = _solved(64)
    assert found.losses is not None and alone.losses is not None
    assert torch.equal(found.losses, alone.losses) and torch.equal(found.weight, alone.weight)


@pytest.mark.parametrize(
    ("identity", "solver"),
    [
        (("weights", "gram", "k_proj"), Gptq()),
        (("weights", "another gram", "q_proj"), Gptq()),
        (("weights", "gram", "q_proj"), Gptq(dampening_frac=0.02)),
        (("weights", "gram", "q_proj"), Gptq(actorder="none")),
        ((), Gptq()),
    ],
)
def test_what_is_known_of_something_else_is_not_used(
    identity: tuple[str, ...], solver: Gptq, computed: list[int]
) -> None:
    _solved(32, "weights", "gram", "q_proj")
    _solved(32, *identity, solver=solver)
    assert sum(computed) == 600


@pytest.mark.parametrize("transforms", [(), (SmoothQuant(),)])
def test_weights_that_a_transform_rewrote_have_no_name(
    transforms: tuple[SmoothQuant, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, ...] | None] = []
    own = Gptq.solve

    def watched(self: Gptq, problem: Problem) -> Quantized:
        seen.append(problem.identity)
        return own(self, problem)

    monkeypatch.setattr(Gptq, "solve", watched)
    llama = tiny("llama", tmp_path / "model", dtype=torch.bfloat16, num_hidden_layers=1)
    config = CompressConfig(scheme=G16, modifiers=(*transforms, Gptq()))
    compress(llama, config, tmp_path / "run")
    assert len(seen) == len(set(seen)) if not transforms else set(seen) == {None}


def test_no_more_is_remembered_than_there_is_room_for() -> None:
    known = Energies(most_bytes=100)
    known.remember("first", torch.ones(20))
    known.remember("second", torch.ones(20))
    known.remember("third", torch.ones(5))
    assert known.recall("first") is not None and known.recall("third") is not None
    assert known.recall("second") is None
