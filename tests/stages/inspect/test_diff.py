"""Comparison of checkpoints: what differs is found and measured, what does not is called equal."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

from pipeline.errors import UserError
from stages.inspect.diff import compare
from stages.inspect.diff_examination import page, tables, verdict
from stages.inspect.differences import decoded_change
from stages.inspect.statistics import Grams
from tests.stages.quantized.checkpoints import edit

Kinds = Callable[[str], Path]
UP = "model.layers.1.mlp.up_proj"


def diff(one: Path, other: Path, tolerance: float = 0.0, grams: Grams | None = None) -> Any:
    return compare((one, other), tolerance=tolerance, grams=grams, told=lambda *_: None)


@pytest.mark.parametrize("kind", ["gptq_asym", "modelopt_nvfp4", "fp8_block"])
def test_a_checkpoint_is_equal_to_itself(kinds: Kinds, kind: str) -> None:
    content = diff(kinds(kind), kinds(kind))
    assert not content["differs"] and content["different"] == 0
    assert verdict(content).startswith("No difference: all decoded numbers of")
    names = [name for row in content["rows"] for name in row["tensors"]]
    assert f"{UP}.weight" in names and "model.norm.weight" in names
    assert len(names) == content["tensors"]


def test_one_changed_nibble_is_found_where_it_is(kinds: Kinds, tmp_path: Path) -> None:
    folder = shutil.copytree(kinds("gptq_asym"), tmp_path / "made")

    def flip(tensors: dict[str, torch.Tensor]) -> None:
        tensors[f"{UP}.qweight"][3, 5] ^= 1 << 8  # the lowest bit of one code

    edit(folder, flip)
    content = diff(kinds("gptq_asym"), folder)
    assert content["differs"] and content["different"] == 1
    (row,) = [row for row in content["rows"] if row["weights"]["different"]]
    assert row["tensors"] == [f"{UP}.weight"] == [row["worst"]]
    assert row["codes"]["different"] == row["weights"]["different"] == 1
    assert row["scales"]["different"] == 0
    assert 0 < row["relative"] < 0.01 and row["largest"] > 0
    assert not diff(kinds("gptq_asym"), folder, tolerance=0.01)["differs"]
    assert verdict(content).startswith("1 of ") and verdict(content).endswith(" tensors differ.")


def test_another_packing_of_the_same_numbers_is_no_difference(kinds: Kinds, tmp_path: Path) -> None:
    """The two conventions of GPTQ's zero points: other words, the same weights."""
    folder = shutil.copytree(kinds("gptq_asym"), tmp_path / "made")

    def second(tensors: dict[str, torch.Tensor]) -> None:
        for name, words in tensors.items():
            if name.endswith("qzeros"):
                words.add_(0x11111111)

    edit(folder, second, config=lambda stated: stated.update(checkpoint_format="gptq_v2"))
    content = diff(kinds("gptq_asym"), folder)
    assert not content["differs"]
    assert all(row["codes"] is None or row["codes"]["different"] == 0 for row in content["rows"])


def test_a_scale_is_told_apart_from_a_code(kinds: Kinds, tmp_path: Path) -> None:
    folder = shutil.copytree(kinds("fp8_block"), tmp_path / "made")
    edit(folder, lambda tensors: tensors[f"{UP}.weight_scale_inv"][0, 0].mul_(1.5))
    (row,) = [r for r in diff(kinds("fp8_block"), folder)["rows"] if r["weights"]["different"]]
    assert row["codes"]["different"] == 0 and row["scales"]["different"] == 1
    assert row["scales"]["largest"] == pytest.approx(0.5)


def test_the_original_is_compared_by_decoded_numbers(kinds: Kinds, tiny_llama: Path) -> None:
    content = diff(tiny_llama, kinds("gptq"))
    rows = {row["name"]: row for row in content["rows"]}
    row = rows["model.layers.0-1.mlp.up_proj.weight"]
    assert row["formats"][1] == "W4A16 g32" and row["codes"] is None
    assert 0.01 < row["relative"] < 0.2 and content["differs"]
    assert content["alone"] == [[], []] and content["shapes"] == []


def test_tensors_without_a_partner_and_other_shapes_are_told(kinds: Kinds, tmp_path: Path) -> None:
    folder = shutil.copytree(kinds("gptq"), tmp_path / "made")

    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors["extra.bias"] = torch.zeros(3)
        tensors["model.norm.weight"] = tensors["model.norm.weight"][:-1].clone()
        del tensors["model.layers.0.input_layernorm.weight"]

    edit(folder, change)
    content = diff(kinds("gptq"), folder)
    assert content["differs"] and content["different"] == 0
    assert content["alone"] == [["model.layers.0.input_layernorm.weight"], ["extra.bias"]]
    assert len(content["shapes"]) == 1 and "model.norm.weight" in content["shapes"][0]
    assert "the second has 1 tensor of its own" in verdict(content)


def test_a_tied_head_is_the_embedding_of_the_other(kinds: Kinds, tmp_path: Path) -> None:
    folder, tied = shutil.copytree(kinds("gptq"), tmp_path / "made"), tmp_path / "tied"
    edit(folder, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    shutil.copytree(folder, tied)
    edit(tied, lambda tensors: tensors.pop("lm_head.weight"))
    settings = json.loads((folder / "config.json").read_text())
    (tied / "config.json").write_text(json.dumps(settings | {"tie_word_embeddings": True}))
    assert not diff(folder, tied)["differs"] and not diff(tied, folder)["differs"]


def test_output_errors_are_those_of_the_inputs() -> None:
    torch.manual_seed(0)
    x, w = torch.randn(50, 8), torch.randn(4, 8)
    q = w + 0.1 * torch.randn(4, 8)
    change = decoded_change(w, q, x.T @ x)
    expected = (x @ (w - q).T).square().sum() / (x @ w.T).square().sum()
    assert change.output == pytest.approx(float(expected), rel=1e-4)
    assert decoded_change(w, w, x.T @ x).output == 0


def test_numbers_that_are_not_finite_are_differences_unless_both_are_nan() -> None:
    nan, one = torch.tensor([float("nan"), 1.0]), torch.tensor([1.0, 1.0])
    assert decoded_change(nan, nan).weights.different == 0
    change = decoded_change(one, nan)
    assert change.weights.different == 1 and change.largest == float("inf")


def test_page_and_tables_tell_the_verdict(kinds: Kinds, tmp_path: Path) -> None:
    folder = shutil.copytree(kinds("gptq"), tmp_path / "made")
    edit(folder, lambda tensors: tensors[f"{UP}.scales"].mul_(1.25))
    content = json.loads(json.dumps(diff(kinds("gptq"), folder)))
    html = page(content)
    assert verdict(content) in html and "What is the same" in html
    console = Console(width=200)
    with console.capture() as printed:
        for each in tables(content):
            console.print(each)
    assert f"{UP}.weight" in printed.get() and verdict(content) in printed.get()


def test_gguf_and_what_cannot_be_decoded_are_refused(kinds: Kinds, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="GGUF file") as told:
        diff(kinds("gptq"), tmp_path / "x.gguf")
    assert "save.compressed=false" in str(told.value)
    folder = shutil.copytree(kinds("gptq"), tmp_path / "made")
    edit(folder, config=lambda stated: stated.update(quant_method="unheard-of"))
    with pytest.raises(UserError, match="cannot be decoded"):
        diff(kinds("gptq"), folder)
