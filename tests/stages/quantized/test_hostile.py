"""Quantized checkpoints made to break readers: read, or refused with one clear error."""

from __future__ import annotations

import resource
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
import torch
from compressed_tensors.quantization import preset_name_to_scheme
from hypothesis import strategies as st
from torch import Tensor

from pipeline.errors import UserError
from stages.compress.grid import grid_of
from stages.compress.observers import minmax
from stages.compress.solvers.rtn import rtn
from stages.formats.compressed_tensors_bridge import parse, schemes_in
from stages.formats.quantization_config import Schemes
from stages.quantized.catalog import opened
from stages.weights.dtypes import dtype_name
from stages.weights.source import TensorSpec
from tests.fuzz import cases, fuzz, hostile, mutated
from tests.stages.compress.solvers.reference import through_checkpoint
from tests.stages.quantized.checkpoints import KINDS

Q = "model.layers.0.self_attn.q_proj"
DTYPES = (torch.float32, torch.float16, torch.int32, torch.int8, torch.uint8, torch.float8_e4m3fn)
SHAPES = ((), (0,), (1,), (2,), (3, 5), (64, 1), (1, 64), (64, 64), (0, 64), (2, 3, 4))
OTHERS = {
    "W4A16_ASYM": "pack-quantized",
    "W8A8": "int-quantized",
    "FP8_DYNAMIC": "float-quantized",
    "FP8_BLOCK": "float-quantized",
    "NVFP4A16": "nvfp4-pack-quantized",
    "MXFP4A16": "mxfp4-pack-quantized",
    "MXFP8A16": "mxfp8-quantized",
}
"""Presets of compressed-tensors and the layouts that they are stored in."""

Sound = tuple[dict[str, Tensor], dict[str, Any]]


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """No case may add more than 300 MB to the process's peak."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000


class Memory:
    """A source of weights that holds them (a `WeightSource`)."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self.tensors = tensors

    def specs(self) -> Mapping[str, TensorSpec]:
        return {
            name: TensorSpec(name=name, shape=tuple(t.shape), dtype=dtype_name(t.dtype))
            for name, t in self.tensors.items()
        }

    def read(self, names: Iterable[str], *, device: str = "cpu") -> dict[str, Tensor]:
        return {name: self.tensors[name].to(device) for name in names}


def sound(kind: str) -> Sound:
    """One quantized Linear and one that is not, and the config that says so."""
    weight = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))
    dense = {"lm_head.weight": weight.half()}
    if kind in KINDS:
        parts, _ = KINDS[kind].pack(weight)
        config = dict(KINDS[kind].config)
    else:
        scheme = preset_name_to_scheme(kind, ["Linear"])
        assert scheme.weights is not None
        if scheme.weights.group_size == 128:
            scheme.weights.group_size = 32
        parts, _ = through_checkpoint(
            rtn(weight, grid_of(scheme.weights), minmax.observe(weight, grid_of(scheme.weights))),
            scheme,
        )
        group = scheme.model_dump(mode="json") | {"format": OTHERS[kind]}
        config = {
            "quant_method": "compressed-tensors",
            "format": group["format"],
            "quantization_status": "compressed",
            "config_groups": {"group_0": group},
            "ignore": ["lm_head"],
        }
    return {f"{Q}.{part}": tensor for part, tensor in parts.items()} | dense, config


NAMES = [*KINDS, *OTHERS]


@st.composite
def tensors(draw: st.DrawFn, given: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with some lost, renamed, or of another shape, dtype or content."""
    found = dict(given)
    for _ in range(draw(st.integers(0, 2))):
        name = draw(st.sampled_from(sorted(found)))
        how = draw(st.sampled_from(["lose", "rename", "replace", "replace", "fill"]))
        if how == "lose" and len(found) > 1:
            del found[name]
        elif how == "rename":
            part = draw(st.sampled_from(["weight", "weight_shape", "weight_g_idx", "g_idx", "x"]))
            found[f"{Q}.{part}"] = found[name]
        elif how == "fill":
            value = draw(st.sampled_from([-1, 0, 2**40, 127]))
            info = found[name].dtype
            limit = torch.iinfo(info).max if not info.is_floating_point else 1e4
            found[name] = torch.full(found[name].shape, min(value, limit), dtype=torch.float64).to(
                info
            )
        else:
            shape, dtype = draw(st.sampled_from(SHAPES)), draw(st.sampled_from(DTYPES))
            found[name] = torch.ones(shape).to(dtype)
    return found


@cases(few=10, many=700)
@pytest.mark.parametrize("kind", NAMES)
def test_a_checkpoint_is_read_or_refused(kind: str, cases: int) -> None:
    parts, config = sound(kind)

    def check(case: tuple[dict[str, Tensor], Any]) -> None:
        given, said = case
        try:
            source = opened(Memory(given), said if isinstance(said, dict) else config, "bfloat16")
            for name, spec in source.specs().items():
                read = source.read([name])[name]
                assert tuple(read.shape) == spec.shape and dtype_name(read.dtype) == spec.dtype
        except UserError as error:
            assert len(str(error)) < 20_000

    some_config = st.just(config) | mutated(config)
    fuzz(cases, st.tuples(tensors(parts), some_config), check)


@pytest.mark.parametrize("kind", ["W8A8", "FP8_DYNAMIC"])
def test_a_weight_of_one_row_is_not_stretched_by_the_scales_of_many(kind: str) -> None:
    parts, config = sound(kind)
    cut = parts | {f"{Q}.weight": parts[f"{Q}.weight"][:1].contiguous()}
    source = opened(Memory(cut), config, "bfloat16")
    with pytest.raises(UserError, match="weight_scale has 64 rows for a weight of 1"):
        source.read([f"{Q}.weight"])


def test_a_weight_is_not_both_packed_and_plain() -> None:
    parts, config = sound("W4A16_ASYM")
    both = parts | {f"{Q}.weight": parts[f"{Q}.weight_zero_point"]}
    with pytest.raises(UserError, match="both weight and weight_packed"):
        opened(Memory(both), config, "bfloat16").specs()


def test_a_message_does_not_repeat_all_of_a_long_value() -> None:
    parts, config = sound("fp8_block")
    config["weight_block_size"] = {"9" * 5000: ["9" * 5000] * 4}
    with pytest.raises(UserError, match=r"weight_block_size is .* characters more") as caught:
        opened(Memory(parts), config, "bfloat16").specs()
    assert len(str(caught.value)) < 3000


def test_half_a_surrogate_pair_is_no_text() -> None:
    parts, config = sound("FP8_BLOCK")
    config["config_groups"]["group_0"]["weights"]["observer_kwargs"] = {"": "\ud800"}
    with pytest.raises(UserError, match="not a valid one"):
        opened(Memory(parts), config, "bfloat16").specs()


@pytest.mark.parametrize("bits", [2, 3, 8])
def test_codes_are_not_read_in_other_bits_than_they_were_packed_in(bits: int) -> None:
    parts, config = sound("W4A16_ASYM")
    del parts[f"{Q}.weight_zero_point"]
    config["config_groups"]["group_0"]["weights"]["num_bits"] = bits
    with pytest.raises(UserError, match="do not tell the shape of its weight"):
        opened(Memory(parts), config, "bfloat16").specs()


@pytest.mark.parametrize("layout", ["mixed-precision", "fakequant", "colorsys:rgb_to_hsv"])
def test_a_format_that_no_one_reads_is_refused_and_imports_nothing(layout: str) -> None:
    parts, config = sound("FP8_DYNAMIC")
    del config["config_groups"]["group_0"]["format"]
    config["format"] = layout
    sys.modules.pop("colorsys", None)
    with pytest.raises(UserError, match=r"what is read: .*float-quantized"):
        opened(Memory(parts), config, "bfloat16").read([f"{Q}.weight"])
    assert "colorsys" not in sys.modules


@pytest.mark.parametrize("kind", NAMES)
def test_what_the_cases_start_from_is_sound(kind: str) -> None:
    parts, config = sound(kind)
    source = opened(Memory(parts), config, "bfloat16")
    assert source.read([f"{Q}.weight"])[f"{Q}.weight"].shape == (64, 64)
    assert set(source.modules) == {Q}


@cases(few=200, many=3000)
def test_a_quantization_config_is_understood_or_refused(cases: int) -> None:
    def check(said: Any) -> None:
        try:
            config = parse(said if isinstance(said, dict) else {"config_groups": said})
            for prefix in (Q, "lm_head", ""):
                Schemes(schemes_in(config)).of(prefix)
        except UserError:
            return

    starts = st.sampled_from([sound(kind)[1] for kind in OTHERS])
    fuzz(cases, starts.flatmap(mutated) | hostile, check)
