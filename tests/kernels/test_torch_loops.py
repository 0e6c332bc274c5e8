"""Plain torch, the reference of all kernels, against the compiled loops: the same codes and scales.

It is what runs on other devices than a CPU, so everything here holds for the code around it too.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from stages.compress.observers import scale_search
from stages.compress.observers.catalog import OBSERVERS
from stages.compress.observers.range import bounds
from stages.compress.solvers import gptq_blocks as gptq_module
from stages.compress.solvers.gptq import gptq
from stages.compute import loops
from stages.compute.row_tiles import even_tiles
from tests.kernels.cases import FORMATS, assert_same, by, grid, running
from tests.stages.compress.solvers.reference import problem


@pytest.mark.parametrize(
    ("name", "actorder"),
    [
        *((name, "static") for name in (*FORMATS, "int4 g32 signed", "int4 channel signed")),
        ("int4 g32", "none"),
    ],
)
def test_gptq_chooses_the_same_codes(name: str, actorder: str) -> None:
    weight, H = problem(rows=33, columns=96)

    def solve() -> object:
        return gptq(weight, H, grid(name), actorder=actorder, block_size=64)

    assert_same(by("torch", solve), by("compiled", solve))


@pytest.mark.parametrize(
    ("name", "observer"),
    [
        *((name, "gram") for name in (*FORMATS, "int4 g32 signed")),
        *((name, "mse") for name in ("int4 g32", "fp8 block")),
        *((name, "imatrix") for name in ("int4 g32 asymmetric", "nvfp4", "int8 tensor")),
    ],
)
def test_observers_choose_the_same_scales(name: str, observer: str) -> None:
    weight, H = problem(rows=33, columns=96)

    def observed() -> object:
        return OBSERVERS[observer](weight, grid(name), importance=H.diagonal())

    one, other = by("torch", observed), by("compiled", observed)
    assert torch.equal(one.scale.float(), other.scale.float())


TILED = ("int4 g32 asymmetric", "fp8 block", "nvfp4")


@pytest.mark.parametrize("name", TILED)
def test_the_search_in_tiles_of_rows_finds_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight, H = problem(rows=33, columns=96)
    with running("torch"):
        whole = OBSERVERS["gram"](weight, grid(name), importance=H.diagonal())
        monkeypatch.setattr(scale_search, "_DEVICE_BYTES", 1 << 15)
        tiled = OBSERVERS["gram"](weight, grid(name), importance=H.diagonal())
    assert torch.equal(whole.scale.float(), tiled.scale.float())
    if whole.zero_point is not None and tiled.zero_point is not None:
        assert torch.equal(whole.zero_point, tiled.zero_point)


@pytest.mark.parametrize("name", TILED)
def test_gptq_in_tiles_of_rows_finds_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    weight, H = problem(rows=33, columns=96)
    with running("torch"):
        whole = gptq(weight, H, grid(name))
        monkeypatch.setattr(gptq_module, "DEVICE_BYTES", 10 * 4 * gptq_module.COPIES * 96)
        tiled = gptq(weight, H, grid(name))
    assert_same(whole, tiled)


@pytest.mark.parametrize("name", FORMATS)
def test_ranges_are_the_same(name: str) -> None:
    weight, _ = problem(rows=33, columns=96)
    for one, other in zip(
        by("torch", lambda: bounds(weight, grid(name))),
        by("compiled", lambda: bounds(weight, grid(name))),
        strict=True,
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("rows", "most", "multiple", "tiles"),
    [
        (10, 4, 1, [(0, 4), (4, 8), (8, 10)]),
        (9, 5, 1, [(0, 5), (5, 9)]),
        (10, 0, 1, [(n, n + 1) for n in range(10)]),
        (10, 100, 1, [(0, 10)]),
        (40, 20, 16, [(0, 16), (16, 32), (32, 40)]),
        (40, 3, 16, [(0, 16), (16, 32), (32, 40)]),
        (0, 5, 1, []),
    ],
)
def test_even_tiles(rows: int, most: int, multiple: int, tiles: list[tuple[int, int]]) -> None:
    found: list[tuple[int, int]] = []
    even_tiles(rows, most, lambda start, stop: found.append((start, stop)), multiple)
    assert found == tiles


@pytest.fixture
def unsaid(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(loops, "_said", loops.Lock())
    loops.missing.cache_clear()
    yield
    loops.missing.cache_clear()


@pytest.mark.usefixtures("unsaid")
def test_a_gpu_without_triton_is_told_of_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "find_spec", lambda name: None)
    said: list[str] = []
    loops.warn_of_slow_loops("cpu", said.append)
    assert said == []
    for device in ("cuda", "cuda:1"):
        loops.warn_of_slow_loops(device, said.append)
    assert len(said) == 1 and said[0].startswith("triton is not installed: ")


@pytest.mark.usefixtures("unsaid")
def test_triton_without_a_compiler_is_no_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loops, "find_spec", lambda name: object())
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("PATH", "")
    assert loops.missing() == "triton finds no C compiler"
