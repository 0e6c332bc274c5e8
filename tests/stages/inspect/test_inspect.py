"""Inspection of checkpoints: formats, figures, conventions with evidence, unreadable ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

from pipeline.errors import UserError
from stages.inspect.examination import page, tables
from tests.stages.inspect.conftest import look
from tests.stages.quantized.checkpoints import KINDS, edit, reading

Kinds = Callable[[str], Path]
EXPECTED = {
    "gptq": ("W4A16 g32", "gptq", "F16", "none"),
    "gptq_asym": ("W4A16 asym g32", "gptq", "F16", "some"),
    "gptq_v2_asym": ("W4A16 asym g32", "gptq_v2", "F16", "some"),
    "gptq_3": ("W3A16 g32", "gptq", "F16", "none"),
    "awq": ("W4A16 asym g32", "awq", "F16", "some"),
    "fp8_block": ("FP8 dynamic block", "fp8", "F32", "none"),
    "fp8_tensor": ("FP8 dynamic tensor", "fp8", "F32", "none"),
    "modelopt_nvfp4": ("NVFP4", "modelopt", "F8_E4M3", "none"),
    "modelopt_fp8": ("FP8A16 tensor", "modelopt", "F32", "none"),
}


def told(content: dict[str, Any]) -> dict[str, str]:
    return {each["what"]: each["evidence"] for each in content["conventions"]}


@pytest.mark.parametrize("name", EXPECTED)
def test_the_format_of_each_kind_is_told_by_its_own_numbers(kinds: Kinds, name: str) -> None:
    content = look(kinds(name))
    assert content["method"] == KINDS[name].config["quant_method"] and content["notes"] == []
    assert [row["name"] for row in content["rows"]][:2] == [
        "model.layers.0-1.mlp.down_proj",
        "model.layers.0-1.mlp.gate_proj",
    ]
    label, layout, dtype, points = EXPECTED[name]
    source = reading(kinds(name))
    for row in content["rows"]:
        assert (row["format"], row["layout"], row["scale_dtype"]) == (label, layout, dtype)
        assert (row["zero_points"] is not None) == (points == "some")
        weights = [source.stored(prefix).weight() for prefix in row["modules"]]
        assert row["weights"] == sum(weight.numel() for weight in weights)
        assert row["zeros"] == sum(int((weight == 0).sum()) for weight in weights)
    sizes = sum(path.stat().st_size for path in kinds(name).glob("*.safetensors"))
    assert 0 < sizes - content["bytes"] < 20_000  # the header is no tensor


def test_groups_are_reduced_alike_in_order_and_out_of_order(kinds: Kinds) -> None:
    for name in ("gptq", "gptq_act", "fp8_block", "awq"):
        row, source = look(kinds(name))["rows"][0], reading(kinds(name))
        expected = 0
        for prefix in row["modules"]:
            stored = source.stored(prefix)
            scale = stored.spread(torch.arange(stored.scale.numel()).reshape(stored.scale.shape))
            weight = stored.weight()
            index = scale.expand(weight.shape).flatten() if stored.columns is None else None
            if index is None:
                index = (scale + torch.zeros_like(weight, dtype=torch.int64)).flatten()
            top = torch.zeros(stored.scale.numel())
            top.scatter_reduce_(0, index, weight.abs().flatten(), "amax")
            expected += int((top > 0).sum())
        assert sum(each["count"] for each in row["largest"]) == expected
        assert row["ordered"] == (len(row["modules"]) if name == "gptq_act" else 0)


def test_an_empty_block_and_its_scale_are_told(kinds: Kinds, tmp_path: Path) -> None:
    folder = shutil.copytree(kinds("modelopt_nvfp4"), tmp_path / "made")

    def empty(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.0.mlp.up_proj.weight"][0, :8] = 0
        scales = tensors["model.layers.0.mlp.up_proj.weight_scale"]
        scales.view(torch.uint8)[0, 0] = (
            torch.tensor(0.125).to(torch.float8_e4m3fn).view(torch.uint8)
        )

    edit(folder, empty)
    content = look(folder)
    what = "blocks of zeros with the scale 0.125, as compressed-tensors stores it"
    assert told(content)[what].startswith("1 block of ")
    row = next(row for row in content["rows"] if row["name"].endswith("up_proj"))
    assert row["empty"] == [{"value": 0.125, "count": 1}]


def test_signed_scales_and_their_lowest_code_are_told(kinds: Kinds, tmp_path: Path) -> None:
    folder = shutil.copytree(kinds("gptq"), tmp_path / "made")
    edit(folder, lambda tensors: tensors["model.layers.1.mlp.up_proj.scales"][0].neg_())
    evidence = told(look(folder))
    what = next(what for what in evidence if what.startswith("signed scales: the code -8"))
    assert "of the scales are negative" in evidence[what]
    assert not any("signed" in what for what in told(look(kinds("gptq"))))


def test_conventions_of_each_writer_are_told(kinds: Kinds) -> None:
    assert told(look(kinds("gptq")))["symmetric integers over ±7: the code -8 is never used"]
    assert any("less one" in what for what in told(look(kinds("gptq"))))
    assert any("as they are" in what for what in told(look(kinds("gptq_v2_asym"))))
    assert any("activation order" in what for what in told(look(kinds("gptq_act"))))
    assert "FP8 scales are amax / 448" in told(look(kinds("fp8_block")))
    content = look(kinds("modelopt_nvfp4"))
    assert content["producers"][0]["name"] == "modelopt"


def test_a_method_without_a_reader_leaves_its_tensors_listed(kinds: Kinds, tmp_path: Path) -> None:
    folder = shutil.copytree(kinds("awq"), tmp_path / "made")
    edit(folder, config=lambda stated: stated.update(quant_method="unheard-of"))
    content = look(folder)
    assert content["rows"] == [] and "'unheard-of'" in content["notes"][0]
    assert {row["dtype"] for row in content["dense"]} == {"I32", "F16"}
    loads = {each["engine"]: each["loads"] for each in content["loads"]}
    assert loads == {"presswork": False, "transformers": False, "vLLM": False}


def test_a_dense_model_is_told_as_such(tiny_llama: Path) -> None:
    content = look(tiny_llama)
    assert content["method"] is None and content["rows"] == []
    names = [row["name"] for row in content["dense"]]
    assert "model.layers.0-1.self_attn.q_proj.weight" in names


def test_what_cannot_be_read_at_all_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no folder"):
        look(tmp_path / "nowhere")
    (tmp_path / "model.safetensors").write_bytes(b"\xff" * 64)
    with pytest.raises(UserError):
        look(tmp_path)
    (tmp_path / "cut.gguf").write_bytes(b"GGUF")
    with pytest.raises(UserError, match="cut off"):
        look(tmp_path / "cut.gguf")


def test_page_and_tables_show_all_rows_and_escape_what_strangers_wrote(
    kinds: Kinds, tmp_path: Path
) -> None:
    folder = shutil.copytree(kinds("modelopt_nvfp4"), tmp_path / "made")
    written = {"name": "<script>[bold]", "version": "1"}
    edit(folder, config=lambda stated: stated.update(producer=written))
    content = json.loads(json.dumps(look(folder)))
    html = page(content)
    assert "<script>[bold]" not in html and "&lt;script&gt;[bold]" in html
    assert all(row["name"] in html for row in content["rows"])
    assert "http" not in html.replace("http-equiv", "")
    console = Console(width=200, record=True, file=None)
    with console.capture() as printed:
        for each in tables(content):
            console.print(each)
    assert "<script>[bold] 1 (producer)" in printed.get()
    assert "model.layers.0-1.mlp.up_proj" in printed.get()


def test_gguf_types_are_told_with_their_scales(tmp_path: Path) -> None:
    from gguf import GGMLQuantizationType, GGUFWriter, dequantize, quantize

    rng = np.random.default_rng(0)
    weight = rng.normal(size=(16, 256)).astype(np.float32)
    weight[0, :32] = 0
    writer = GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    expected = {}
    for kind in ("Q4_0", "Q8_0", "MXFP4", "NVFP4", "Q5_1"):
        stored = GGMLQuantizationType[kind]
        raw = (
            rng.integers(0, 120, (16, 144), np.uint8)
            if kind == "NVFP4"
            else quantize(weight, stored)
        )
        expected[kind] = int((dequantize(raw, stored) == 0).sum())
        for layer in range(2):
            name = f"blk.{layer}.{kind.lower()}.weight"
            writer.add_tensor(name, raw, raw_dtype=stored)
    writer.add_tensor("norm.weight", weight[1])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = look(tmp_path / "m.gguf")
    rows = {row["format"]: row for row in content["rows"]}
    assert set(rows) == set(expected)
    for kind, row in rows.items():
        assert row["zeros"] == 2 * expected[kind] and row["weights"] == 2 * weight.size
        assert len(row["modules"]) == 2 and row["name"].startswith("blk.0-1.")
    assert rows["Q4_0"]["negative"] > 0.3 * rows["Q4_0"]["scales"]
    assert rows["Q8_0"]["negative"] == 0 and rows["Q4_0"]["bits_per_weight"] == 4.5
    assert np.log2([rows["MXFP4"]["least"], rows["MXFP4"]["most"]]) % 1 == pytest.approx(0)
    assert any("signed" in what for what in told(content))
    assert [row["dtype"] for row in content["dense"]] == ["F32"]
    assert page(content) and tables(content)
