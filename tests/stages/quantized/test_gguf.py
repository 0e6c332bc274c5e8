"""GGUF as a quantized source: blocks mean what the gguf package decodes, and are kept so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from transformers import AutoModelForCausalLM, CompressedTensorsConfig

from pipeline.errors import UserError
from pipeline.outside import PinnedFile
from stages.quantized.gguf import QuantizedGguf
from stages.quantized.gguf_blocks import FORMATS, stored_blocks
from stages.weights.gguf_header import read_gguf_header
from stages.weights.gguf_source import GgufSource
from tests.jobs import Job
from tests.loading import loaded_as
from tests.stages.load.conftest import write_gguf_model
from tests.stages.load.test_gguf import as_transformers_reads
from tests.stages.quantized.test_keeping import meanings

ROWS, COLUMNS = 6, 512


def decodes(kind: GGMLQuantizationType) -> bool:
    try:
        gguf.dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), np.uint8), kind)
    except NotImplementedError:
        return False
    return True


TYPES = [kind.name for kind in GGMLQuantizationType if decodes(kind)]


def drawn(kind: str, seed: int = 0) -> np.ndarray[Any, Any]:
    """Rows of any bytes; halves among them that are not finite decode as they will."""
    elements, width = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    shape = (ROWS, COLUMNS // elements * width)
    return np.random.default_rng(seed).integers(0, 255, shape, dtype=np.uint8)


@pytest.mark.parametrize("kind", sorted(FORMATS))
def test_codes_and_scales_mean_what_gguf_decodes(kind: str) -> None:
    rows = drawn(kind)
    expected = gguf.dequantize(rows, GGMLQuantizationType[kind])
    found = stored_blocks(kind, rows)
    assert np.array_equal(found.weight().numpy(), expected, equal_nan=True)
    assert FORMATS[kind].columns == GGML_QUANT_SIZES[GGMLQuantizationType[kind]][0]


@pytest.mark.parametrize(("kind", "place"), [("MXFP4", 0), ("NVFP4", 2)])
def test_a_scale_that_is_nan_elsewhere_is_not_kept(kind: str, place: int) -> None:
    rows = drawn(kind)
    rows[1, place] = 255
    with pytest.raises(ValueError, match="NaN in"):
        stored_blocks(kind, rows)


@pytest.mark.parametrize("byte", [0, 0x7F])
def test_scales_of_nvfp4_that_mean_zero_are_zero(byte: int) -> None:
    rows = drawn("NVFP4")
    rows[0, :4] = byte
    assert not stored_blocks("NVFP4", rows).weight()[0, :64].any()


@pytest.mark.parametrize("kind", TYPES)
def test_every_type_is_read_as_gguf_decodes_it(tmp_path: Path, kind: str) -> None:
    path, stored = tmp_path / "x.gguf", GGMLQuantizationType[kind]
    rows = drawn(kind) if kind not in ("F16", "F32", "F64", "BF16") else drawn(kind) & 0x3F
    writer = gguf.GGUFWriter(path, "qwen3")
    writer.add_tensor("blk.0.ffn_up.weight", rows, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    header = read_gguf_header(path)
    (tensor,) = header.tensors.values()
    entry = {"stored": tensor.name, "type": tensor.type, "start": tensor.start}
    entry |= {"length": tensor.length, "rows": list(tensor.shape), "shape": list(tensor.shape)}
    source = QuantizedGguf(
        GgufSource(
            PinnedFile(path, header.state),
            tensors={"up.weight": entry},
            dtype="F32",
            architecture="qwen3",
            config={},
        )
    )
    expected = torch.from_numpy(np.array(gguf.dequantize(rows, stored), np.float32))
    found = source.read(["up.weight"])["up.weight"]
    assert torch.equal(found.nan_to_num(), expected.nan_to_num())
    assert set(source.modules) == ({"up"} if kind in FORMATS else set())
    if kind in FORMATS:
        assert torch.equal(source.stored("up").weight().nan_to_num(), expected.nan_to_num())


KEPT = {
    "Q4_0": ("w4a16", "scheme.weights.group_size=32"),
    "Q8_0": ("w8a16", "scheme.weights.strategy=group", "scheme.weights.group_size=32"),
    "MXFP4": ("mxfp4a16",),
}


def job(tmp_path: Path, text: Path, *kinds: str) -> Job:
    write_gguf_model(tmp_path / "tiny.gguf", formats=kinds)
    return Job(folder=tmp_path, model=tmp_path, text=text)


def words(tmp_path: Path, scheme: str, *more: str) -> list[str]:
    path = f"model.path={tmp_path / 'tiny.gguf'}"
    return ["model=gguf", path, "modifier=keep", f"scheme={scheme}", *more]


@pytest.mark.parametrize("kind", sorted(KEPT))
def test_a_file_is_kept_to_the_bit(tmp_path: Path, some_text: Path, kind: str) -> None:
    made = job(tmp_path, some_text, kind)
    result = made.run("run", *words(tmp_path, *KEPT[kind]))
    assert result["verify"]["ok"] is True
    expected = as_transformers_reads(tmp_path / "tiny.gguf", torch.float32)
    checkpoint = tmp_path / "run" / "checkpoint"
    found = meanings(checkpoint)
    assert len(found) == 14
    for name, weight in found.items():
        assert torch.equal(weight, expected[f"{name}.weight"]), name
    loaded = AutoModelForCausalLM.from_pretrained(
        checkpoint,
        dtype=torch.float32,
        quantization_config=CompressedTensorsConfig(run_compressed=False),
    ).state_dict()
    for name in found:
        assert loaded_as(loaded[f"{name}.weight"], expected[f"{name}.weight"]), name
    told = [text for text in result["warnings"] if "float16 scales are kept" in str(text)]
    assert bool(told) == (kind != "MXFP4")
    assert json.loads((checkpoint / "config.json").read_text())["dtype"] == "bfloat16"


def test_what_no_format_can_say_is_named_before_the_run(tmp_path: Path, some_text: Path) -> None:
    made = job(tmp_path, some_text, "Q4_0", "Q5_1")
    with pytest.raises(UserError, match=r"the source has it as Q5_1, whose numbers no format"):
        made.run("run", *words(tmp_path, *KEPT["Q4_0"]))
