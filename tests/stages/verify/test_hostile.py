"""mode=verify checkpoint=DIR with folders made to break it: a report or one clear error."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from torch import Tensor

from pipeline.config.root import load_config
from pipeline.config.searchpath import own_configs
from pipeline.modes.verify import verify
from pipeline.registry import Registry
from stages.compress.grid import grid_of
from stages.compress.observers import minmax
from stages.compress.solvers.rtn import rtn
from stages.verify.standalone import inspect
from tests.fuzz import cases, fuzz, mutated
from tests.pipeline.tiny import composed
from tests.stages.compress.solvers.reference import through_checkpoint

WIDTH, WIDE, WORDS = 32, 64, 40
LINEARS = {
    "self_attn.q_proj": (WIDTH, WIDTH),
    "self_attn.k_proj": (16, WIDTH),
    "self_attn.v_proj": (16, WIDTH),
    "self_attn.o_proj": (WIDTH, WIDTH),
    "mlp.gate_proj": (WIDE, WIDTH),
    "mlp.up_proj": (WIDE, WIDTH),
    "mlp.down_proj": (WIDTH, WIDE),
}
LAYER = "model.layers.0"


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """No case may add more than 500 MB to the process's peak (transformers is imported once)."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


def sound() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """A llama of one layer in W4A16, and its config.json."""
    args = QuantizationArgs(num_bits=4, strategy="group", group_size=32, symmetric=False)
    scheme = QuantizationScheme(targets=["Linear"], weights=args, format="pack-quantized")
    make = torch.Generator().manual_seed(0)
    tensors: dict[str, Tensor] = {}
    for name, shape in LINEARS.items():
        weight = torch.randn(shape, generator=make)
        parts, _ = through_checkpoint(
            rtn(weight, grid_of(args), minmax.observe(weight, grid_of(args))), scheme
        )
        tensors |= {f"{LAYER}.{name}.{part}": tensor for part, tensor in parts.items()}
    for norm in (f"{LAYER}.input_layernorm", f"{LAYER}.post_attention_layernorm", "model.norm"):
        tensors[f"{norm}.weight"] = torch.ones(WIDTH, dtype=torch.bfloat16)
    for end in ("model.embed_tokens", "lm_head"):
        tensors[f"{end}.weight"] = torch.randn(WORDS, WIDTH, generator=make).bfloat16()
    config = {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": WIDTH,
        "intermediate_size": WIDE,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": WORDS,
        "tie_word_embeddings": False,
        "dtype": "bfloat16",
        "quantization_config": {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "quantization_status": "compressed",
            "config_groups": {"group_0": scheme.model_dump(mode="json")},
            "ignore": ["lm_head"],
        },
    }
    return tensors, config


def written(folder: Path, tensors: dict[str, Tensor], config: object) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def report_of(folder: Path) -> dict[str, Any]:
    before = {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")}
    report = inspect(folder, lambda *_: None)
    assert {path: path.stat().st_mtime_ns for path in folder.parent.rglob("*")} == before
    assert report["checks"] and len(json.dumps(report)) < 200_000
    return report


def test_what_the_cases_start_from_is_sound(tmp_path: Path) -> None:
    report = report_of(written(tmp_path / "sound", *sound()))
    assert report["ok"] is True, report["checks"]


@cases(few=25)
def test_any_config_is_reported_on(tmp_path: Path, cases: int) -> None:
    tensors, config = sound()
    folder = written(tmp_path / "folder", tensors, config)

    def check(said: object) -> None:
        (folder / "config.json").write_text(json.dumps(said))
        report_of(folder)

    whole = mutated(config)
    inner = mutated(config["quantization_config"]).map(
        lambda said: {**config, "quantization_config": said}
    )
    fuzz(cases, whole | inner, check)


def test_a_config_with_half_a_surrogate_pair_is_reported(tmp_path: Path) -> None:
    tensors, config = sound()
    group = config["quantization_config"]["config_groups"]["group_0"]
    group["weights"]["observer_kwargs"] = {"": "\ud800"}
    report = report_of(written(tmp_path / "folder", tensors, config))
    assert report["ok"] is False


@pytest.mark.parametrize("layout", ["mixed-precision", "fakequant", "os:system"])
def test_a_format_that_no_one_reads_is_reported(tmp_path: Path, layout: str) -> None:
    tensors, config = sound()
    said = config["quantization_config"]
    del said["config_groups"]["group_0"]["format"]
    said["format"] = layout
    checks = report_of(written(tmp_path / "folder", tensors, config))["checks"]
    failed = {check["name"]: check["detail"] for check in checks if check["ok"] is False}
    assert "weights in the format" in failed["parts of compressed modules"]


SHAPES = ((), (0,), (1,), (3, 5), (32, 1), (1, 32), (2, 3, 4))
DTYPES = (torch.float32, torch.int32, torch.int64, torch.uint8, torch.float8_e4m3fn)


@cases(few=20)
def test_any_tensors_are_reported_on(tmp_path: Path, cases: int) -> None:
    tensors, config = sound()
    folder = written(tmp_path / "folder", tensors, config)
    change = st.tuples(
        st.sampled_from(sorted(tensors)),
        st.sampled_from(["lose", "replace", "huge", "negative"]),
        st.sampled_from(SHAPES),
        st.sampled_from(DTYPES),
    )

    def check(changes: list[tuple[str, str, tuple[int, ...], torch.dtype]]) -> None:
        given = dict(tensors)
        for name, how, shape, dtype in changes:
            if how == "lose":
                given.pop(name, None)
            elif how == "replace":
                given[name] = torch.ones(shape).to(dtype)
            else:
                value = 2**60 if how == "huge" else -1
                given[name] = torch.full_like(tensors[name].double(), value).to(torch.int64)
        written(folder, given, config)
        report_of(folder)

    fuzz(cases, st.lists(change, min_size=1, max_size=3), check)


@cases(few=20)
def test_any_bytes_are_reported_on(tmp_path: Path, cases: int) -> None:
    tensors, config = sound()
    folder = written(tmp_path / "folder", tensors, config)
    data = save(tensors)

    def check(edits: list[tuple[int, bytes]]) -> None:
        out = bytearray(data)
        for at, piece in edits:
            out[at : at + len(piece)] = piece
        (folder / "model.safetensors").write_bytes(out)
        report_of(folder)

    place = st.integers(0, 4000) | st.integers(0, len(data) - 1)
    fuzz(cases, st.lists(st.tuples(place, st.binary(min_size=1, max_size=6)), min_size=1), check)


def test_an_index_beside_one_file_is_checked_too(tmp_path: Path) -> None:
    folder = written(tmp_path / "sound", *sound())
    for text in ("[", '{"weight_map": 3}', '{"weight_map": {"a": "b"}, "metadata": [1]}'):
        (folder / "model.safetensors.index.json").write_text(text)
        failed = [check["name"] for check in report_of(folder)["checks"] if check["ok"] is False]
        assert failed == ["index"]


def test_names_cannot_steer_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file({"a": torch.ones(1)}, folder / "x.safetensors")
    index = {"weight_map": {"\x1b[2Jgone\ud800": "x.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text("{}")
    given = ["mode=verify", "device=cpu", f"checkpoint={folder}"]
    cfg = composed(own_configs(), *given, name="config")
    assert verify(load_config(cfg, Registry.load(), overrides=given), tmp_path) == 1
    shown = capsys.readouterr().out
    assert "\\x1b[2Jgone\\ud800" in shown.replace("\n", "") and "\x1b[2J" not in shown
