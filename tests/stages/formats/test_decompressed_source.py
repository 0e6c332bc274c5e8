"""A compressed checkpoint reads like the dense one, as compressed-tensors itself reads it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from pipeline.errors import UserError
from stages.compress.grid import grid_of
from stages.compress.observers import minmax
from stages.compress.solvers.rtn import rtn
from stages.fake_quant.activations import simulated_inputs
from stages.formats.compressed_tensors_bridge import to_compressed_tensors
from stages.formats.decompressed_source import Decompressed
from stages.formats.input_params import InputParams
from stages.formats.module_tensors import main_part, stored_parts
from stages.formats.pack import pack
from stages.formats.quantization_config import quantization_config
from stages.schemes.resolve import resolve
from stages.weights import open_checkpoint
from tests.stages.formats.fakes import blueprint
from tests.stages.schemes.presets import NAMES, QUANTIZED, load

MODEL = blueprint(layers=1, width=128, inner=256)
NORM = "model.layers.0.input_layernorm.weight"


def write(folder: Path, name: str) -> tuple[Decompressed, dict[str, Tensor]]:
    """A checkpoint of one layer under a shipped scheme, and the weights chosen for it."""
    resolved = resolve(load(name), MODEL).checked()
    generator = torch.Generator().manual_seed(2)
    tensors, chosen = {NORM: torch.ones(128, dtype=torch.bfloat16)}, {}
    for linear in MODEL.layers[0].linears:
        scheme = to_compressed_tensors(resolved[linear.name].scheme)
        assert scheme.weights is not None
        weight = torch.randn(linear.out_features, linear.in_features, generator=generator)
        result = rtn(
            weight, grid_of(scheme.weights), minmax.observe(weight, grid_of(scheme.weights))
        )
        assert result.codes is not None
        packed = pack(
            result.codes,
            scale=result.scale,
            zero_point=result.zero_point,
            global_scale=result.global_scale,
            inputs=InputParams(
                scale=torch.tensor([0.01], dtype=torch.bfloat16) if name == "fp8" else None,
                global_scale=torch.tensor([400.0]) if name == "nvfp4" else None,
            ),
            scheme=scheme,
        )
        tensors |= {f"{linear.prefix}.{part}": value for part, value in packed.items()}
        chosen[f"{linear.prefix}.weight"] = result.weight.to(torch.bfloat16)
    save_file(tensors, folder / "model.safetensors")
    config = quantization_config(resolved, MODEL)
    return Decompressed(open_checkpoint(folder), config, torch.bfloat16), chosen


@pytest.mark.parametrize("name", QUANTIZED)
def test_every_weight_is_what_was_chosen(tmp_path: Path, name: str) -> None:
    source, chosen = write(tmp_path, name)
    read = source.read([*chosen, NORM])
    assert set(read) == {*chosen, NORM}
    for key, weight in chosen.items():
        assert torch.equal(read[key], weight)
        assert source.specs()[key].shape == weight.shape


@pytest.mark.parametrize("name", QUANTIZED)
def test_no_compressed_part_shows_among_the_names(tmp_path: Path, name: str) -> None:
    source, chosen = write(tmp_path, name)
    assert set(source.specs()) == {*chosen, NORM}


@pytest.mark.parametrize("name", ["w4a16", "fp8", "nvfp4"])
def test_the_tensor_with_the_codes_can_be_left_out(tmp_path: Path, name: str) -> None:
    source, _ = write(tmp_path, name)
    files = open_checkpoint(tmp_path)
    for linear in MODEL.layers[0].linears:
        own, main = source.stored(linear.prefix), main_part(files.specs(), linear.prefix)
        assert main in (f"{linear.prefix}.weight", f"{linear.prefix}.weight_packed")
        others = stored_parts(files, files.specs(), linear.prefix, but=main)
        assert own.keys() - others.keys() == {main.rpartition(".")[2]}
        assert all(torch.equal(own[part].float(), others[part].float()) for part in others)


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    source, _ = write(tmp_path, "w4a16")
    tensors = source._source.read(source._source.specs())
    del tensors["model.layers.0.mlp.up_proj.weight_packed"]
    save_file(tensors, tmp_path / "model.safetensors")
    again = Decompressed(
        open_checkpoint(tmp_path), source._config.model_dump(mode="json"), torch.bfloat16
    )
    with pytest.raises(UserError, match=r"model\.layers\.0\.mlp\.up_proj do not fit"):
        again.read(["model.layers.0.mlp.up_proj.weight"])


@pytest.mark.parametrize(
    ("name", "count"), [("w4a16", 0), ("w8a8", 7), ("fp8", 7), ("nvfp4", 7), ("mxfp4", 7)]
)
def test_input_rules_are_those_of_the_scheme(tmp_path: Path, name: str, count: int) -> None:
    source, _ = write(tmp_path, name)
    rules = source.input_rules({x.name: x.prefix for x in MODEL.layers[0].linears})
    assert len(rules) == count


WITH_INPUTS = ("w8a8", "fp8", "fp8_dynamic", "nvfp4", "mxfp4", "mxfp4xfp8", "mxfp6a8")


@pytest.mark.parametrize("name", [name for name in WITH_INPUTS if name in NAMES])
def test_simulated_inputs_are_compressed_tensors_own_forward(tmp_path: Path, name: str) -> None:
    from compressed_tensors.quantization import QuantizationStatus
    from compressed_tensors.quantization.lifecycle.forward import set_forward_quantized

    source, chosen = write(tmp_path, name)
    spec = MODEL.layers[0].linears[0]
    rules = source.input_rules({"0": spec.prefix})
    model = nn.Sequential(nn.Linear(128, 128, bias=False, dtype=torch.bfloat16))
    model[0].weight.data = chosen[f"{spec.prefix}.weight"]
    x = torch.randn(2, 5, 128, generator=torch.Generator().manual_seed(3)).bfloat16()
    plain = model(x)
    with simulated_inputs(model, rules):
        ours = model(x)
    assert torch.equal(model(x), plain), "the hooks are gone afterwards"
    assert not torch.equal(ours, plain)

    peer = model[0]
    peer.quantization_scheme = source.schemes[spec.prefix]
    peer.quantization_status = QuantizationStatus.COMPRESSED
    for part, value in source.stored(spec.prefix).items():
        if part.startswith("input_"):
            peer.register_buffer(part, value)
    set_forward_quantized(peer)
    assert torch.equal(ours, model(x))
