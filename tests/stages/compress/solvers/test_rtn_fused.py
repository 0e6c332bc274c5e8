"""Rounding straight from bfloat16 against the general way: observer, solver, pack, checksum."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from torch import Tensor

from stages.compress.grid import grid_of
from stages.compress.layer.state import LazyTensors
from stages.compress.modifiers.rtn_route import is_fused
from stages.compress.observers import minmax
from stages.compress.observers.absmax_scale import scales_of
from stages.compress.observers.qparams import qparams_of
from stages.compress.rtn_streaming import parts_of
from stages.compress.solvers.output_error import relative_error
from stages.compress.solvers.rtn import rtn
from stages.compress.solvers.rtn_fused import INFINITE, direct
from stages.formats.checksums import bit_sums
from stages.formats.code_checksum import code_checksum
from stages.formats.input_params import InputParams
from stages.formats.pack import pack
from stages.weights.dtypes import dtype_name

BF16 = torch.bfloat16
SCHEMES: list[tuple[str, dict[str, Any]]] = [
    ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
    ("float-quantized", {"num_bits": 8, "type": "float", "strategy": "tensor"}),
    (
        "float-quantized",
        {"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]},
    ),
    ("naive-quantized", {"num_bits": 8, "type": "float", "strategy": "channel"}),
    ("int-quantized", {"num_bits": 8, "type": "int", "strategy": "channel"}),
    ("int-quantized", {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32}),
    *(
        ("pack-quantized", {"num_bits": bits, "type": "int", "strategy": "group", "group_size": 32})
        for bits in range(2, 9)
    ),
    ("pack-quantized", {"num_bits": 3, "type": "int", "strategy": "channel"}),
]


def scheme_of(layout: str, args: dict[str, Any]) -> QuantizationScheme:
    scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**args))
    return scheme.model_copy(update={"format": layout})


def weights_of(layout: str, args: dict[str, Any]) -> tuple[QuantizationArgs, str]:
    return QuantizationArgs(**args), layout


def general(
    weight: Tensor, scheme: QuantizationScheme
) -> tuple[dict[str, Tensor], Tensor, dict[str, Tensor]]:
    assert scheme.weights is not None
    qparams = minmax.observe(weight, grid_of(scheme.weights, BF16))
    chosen = rtn(weight, grid_of(scheme.weights, BF16), qparams)
    params: dict[str, Any] = {
        "scale": chosen.scale,
        "zero_point": chosen.zero_point,
        "global_scale": None,
        "scheme": scheme,
    }
    assert chosen.codes is not None
    stored = pack(chosen.codes, inputs=InputParams(), **params)
    return stored, chosen.weight, code_checksum(chosen.codes, dtype=BF16, **params)


def weights() -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(5)
    plain = torch.randn(257, 384, generator=draw)
    uneven = torch.randn(130, 96, generator=draw) * 10.0 ** torch.randint(
        -9, 9, (130, 96), generator=draw
    )
    uneven[3] = 0
    every = torch.arange(65536, dtype=torch.int32).to(torch.int16).view(BF16).float()
    every = torch.where(every.abs() < 1e37, every, 1.0).reshape(256, 256)
    return {"plain": plain.to(BF16), "uneven": uneven.to(BF16), "every": every.to(BF16)}


def fits(weight: Tensor, args: Any, layout: str, dtype: torch.dtype) -> bool:
    model = str(dtype).removeprefix("torch.")
    return is_fused(args, layout, tuple(weight.shape), dtype_name(weight.dtype), model)


@pytest.mark.parametrize("which", list(weights()))
@pytest.mark.parametrize(("layout", "args"), SCHEMES)
def test_every_byte_is_that_of_the_general_way(
    layout: str, args: dict[str, Any], which: str
) -> None:
    weight, scheme = weights()[which], scheme_of(layout, args)
    assert scheme.weights is not None and fits(weight, scheme.weights, layout, BF16)
    made = direct(weight, scheme.weights, layout)
    stored, chosen, sums = general(weight, scheme)
    assert made is not None
    mine = parts_of(made, tuple(weight.shape), layout)
    assert mine.keys() == stored.keys()
    for name, tensor in mine.items():
        assert tensor.dtype == stored[name].dtype and tensor.shape == stored[name].shape
        assert torch.equal(tensor.view(torch.uint8), stored[name].view(torch.uint8)), name
    for side, values in bit_sums(chosen.to(BF16)).items():
        assert torch.equal(sums[side], values)
    assert torch.equal(made.rows, sums["rows"]) and torch.equal(made.columns, sums["columns"])
    if which == "plain":
        assert made.relative_error == pytest.approx(relative_error(weight, chosen), rel=1e-4)


@pytest.mark.parametrize(
    "args",
    [
        {"num_bits": 8, "type": "float"},
        *({"num_bits": bits, "type": "int"} for bits in range(2, 9)),
    ],
)
def test_the_scale_of_every_magnitude_is_that_of_compressed_tensors(args: dict[str, Any]) -> None:
    every = torch.arange(INFINITE, dtype=torch.int16).view(BF16)
    given = QuantizationArgs(**args, strategy="channel")
    theirs, _ = calculate_qparams(-every, every, given)
    assert torch.equal(scales_of(every, given).view(torch.int16), theirs.view(torch.int16))
    assert bool((theirs > 0).all() & torch.isfinite(theirs).all())


@pytest.mark.parametrize("dtype", [BF16, torch.float16, torch.float32])
@pytest.mark.parametrize("bits", [4, 8])
def test_symmetric_ranges_have_the_scales_of_compressed_tensors_in_every_dtype(
    bits: int, dtype: torch.dtype
) -> None:
    ends = torch.randn(2, 40, 30, generator=torch.Generator().manual_seed(bits))
    low, high = ends.clamp(max=0)[0], ends.clamp(min=0)[1]
    low[0], high[0] = 0.0, 0.0
    given = QuantizationArgs(num_bits=bits, strategy="channel")
    theirs, _ = calculate_qparams(low.to(dtype), high.to(dtype), given)
    found = qparams_of(low, high, grid_of(given, dtype), global_scale=None)
    assert found.scale.dtype == dtype and torch.equal(found.scale, theirs)


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_do_not_change_a_bit(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.compress.solvers.rtn_fused.ELEMENTS", 384 * 7)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        cut = direct(weights()["plain"], *weights_of(*SCHEMES[2]))
    finally:
        torch.set_num_threads(before)
    monkeypatch.undo()
    whole = direct(weights()["plain"], *weights_of(*SCHEMES[2]))
    assert cut is not None and whole is not None
    assert torch.equal(cut.codes.view(torch.uint8), whole.codes.view(torch.uint8))
    assert torch.equal(cut.columns, whole.columns) and cut.relative_error == whole.relative_error


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_left_to_the_solver(bad: float) -> None:
    weight = weights()["plain"].clone()
    weight[7, 9] = bad
    for layout, args in SCHEMES[:2]:
        assert direct(weight, *weights_of(layout, args)) is None


def test_formats_with_more_than_codes_and_scales_do_not_fit() -> None:
    weight = weights()["plain"]
    asymmetric = {"num_bits": 4, "type": "int", "strategy": "channel", "symmetric": False}
    fp4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
    assert not fits(weight, *weights_of("pack-quantized", asymmetric), BF16)
    assert not fits(weight, *weights_of("nvfp4-pack-quantized", fp4), BF16)
    assert not fits(weight.float(), *weights_of(*SCHEMES[0]), BF16)
    assert not fits(weight, *weights_of(*SCHEMES[0]), torch.float32)


class Counting:
    """A source that counts how often a tensor was read."""

    def __init__(self) -> None:
        self.read_names: list[str] = []

    def read(self, names: Any, *, device: str = "cpu") -> dict[str, Tensor]:
        self.read_names += names
        return {name: torch.ones(2) for name in names}


def test_lazy_tensors_are_read_when_asked_for_and_kept_unless_peeked() -> None:
    source = Counting()
    tensors = LazyTensors({"a": "on.disk.a", "b": "on.disk.b", "c": "on.disk.c"}, source)
    assert list(tensors) == ["a", "b", "c"] and "b" in tensors and "d" not in tensors
    assert source.read_names == []
    tensors.peek("a")
    tensors.peek("a")
    assert tensors["b"] is tensors["b"]
    assert source.read_names == ["on.disk.a", "on.disk.a", "on.disk.b"]
    tensors["a"] = torch.zeros(1)
    assert float(tensors.pop("a")) == 0.0
    del tensors["c"]
    assert list(tensors) == ["b"] and len(tensors) == 1 and len(source.read_names) == 3
