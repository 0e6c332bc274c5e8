"""MXFP4 experts read as transformers dequantizes them, one expert at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

from pipeline.errors import UserError
from stages.model.experts.layout import DOWN, GATE, GATE_UP, UP, Layout
from stages.quantized.catalog import opened
from stages.quantized.mxfp4 import Mxfp4Source
from stages.weights.cut_source import CutSource
from stages.weights.safetensors_source import SafetensorsSource

CONFIG = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
E, H, INNER = 3, 96, 32
PREFIX = "model.layers.0.mlp.experts"
LAYOUT = Layout(
    experts=E,
    hidden=H,
    intermediate=INNER,
    gate=True,
    bias=True,
    transposed=True,
    interleaved=True,
    identities=False,
    arguments=3,
)


def packed(rows: int, columns: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shape = (E, rows, columns // 32)
    blocks = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8, generator=generator)
    scales = torch.randint(110, 130, shape, dtype=torch.uint8, generator=generator)
    return {"blocks": blocks, "scales": scales}


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    found = {f"{PREFIX}.{GATE_UP}_{part}": t for part, t in packed(2 * INNER, H, 1).items()}
    found |= {f"{PREFIX}.{DOWN}_{part}": t for part, t in packed(H, INNER, 2).items()}
    found[f"{PREFIX}.{GATE_UP}_bias"] = torch.randn(E, 2 * INNER).bfloat16()
    return found


def source_of(tensors: dict[str, Tensor], folder: Path) -> Mxfp4Source:
    save_file(tensors, folder / "model.safetensors")
    stored = SafetensorsSource.of_file(folder / "model.safetensors")
    source = opened(stored, CONFIG, "bfloat16")
    assert isinstance(source, Mxfp4Source)
    return source


def test_fused_experts_read_as_transformers_converts_them(
    tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    source = source_of(tensors, tmp_path)
    for name, shape in ((GATE_UP, (E, H, 2 * INNER)), (DOWN, (E, INNER, H))):
        full = f"{PREFIX}.{name}"
        blocks, scales = (tensors[f"{full}_{part}"] for part in ("blocks", "scales"))
        wanted = convert_moe_packed_tensors(blocks, scales)
        found = source.read([full])[full]
        assert source.specs()[full].shape == tuple(found.shape) == shape
        assert torch.equal(found, wanted)
    assert set(source.specs()) == {f"{PREFIX}.{n}" for n in (GATE_UP, DOWN, f"{GATE_UP}_bias")}


def test_one_experts_gate_is_read_without_the_others(
    tensors: dict[str, Tensor], tmp_path: Path
) -> None:
    source = source_of(tensors, tmp_path)
    whole = source.read([f"{PREFIX}.{GATE_UP}"])[f"{PREFIX}.{GATE_UP}"]
    cuts = LAYOUT.cuts(GATE_UP, f"{PREFIX}.{GATE_UP}", ())
    cuts |= LAYOUT.cuts(f"{GATE_UP}_bias", f"{PREFIX}.{GATE_UP}_bias", ())
    view = CutSource(source, cuts)
    found = view.read([f"2.{GATE}.weight", f"2.{UP}.weight", f"2.{UP}.bias"])
    assert torch.equal(found[f"2.{GATE}.weight"], whole[2, :, ::2].T)
    assert torch.equal(found[f"2.{UP}.weight"], whole[2, :, 1::2].T)
    assert torch.equal(found[f"2.{UP}.bias"], tensors[f"{PREFIX}.{GATE_UP}_bias"][2, 1::2])
    assert view.specs()[f"2.{UP}.weight"].shape == (INNER, H)


@pytest.mark.parametrize("broken", ["blocks", "scales", "shape"])
def test_blocks_without_their_scales_are_one_error(
    tensors: dict[str, Tensor], tmp_path: Path, broken: str
) -> None:
    if broken == "shape":
        tensors[f"{PREFIX}.{DOWN}_scales"] = tensors[f"{PREFIX}.{DOWN}_scales"][:, :-1].contiguous()
    else:
        del tensors[f"{PREFIX}.{DOWN}_{broken}"]
    with pytest.raises(UserError, match=rf"{DOWN}_"):
        source_of(tensors, tmp_path).specs()
