"""gpt-oss as published: the MXFP4 codes of its fused experts are kept, one Linear at a time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GptOssConfig, GptOssForCausalLM

from pipeline.errors import UserError
from stages.quantized.catalog import opened
from stages.weights.safetensors_source import SafetensorsSource
from tests.benchmarks.random_llama import write_tokenizer
from tests.jobs import Job
from tests.stages.quantized.test_keeping import meanings

CONFIG = {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn"]}
EXPERTS, HIDDEN, INNER = 4, 64, 32
DENSE = "scheme.ignore=[lm_head,re:.*self_attn.*]"


def published(folder: Path) -> Path:
    """A tiny gpt-oss whose experts are stored as OpenAI stores them."""
    config = GptOssConfig(
        num_hidden_layers=2,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_local_experts=EXPERTS,
        num_experts_per_tok=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        vocab_size=258,
        max_position_embeddings=256,
        quantization_config=CONFIG,
    )
    torch.manual_seed(0)
    GptOssForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    write_tokenizer(folder)
    file = folder / "model.safetensors"
    tensors: dict[str, Tensor] = {}
    for name, tensor in load_file(file).items():
        if not name.endswith(("experts.gate_up_proj", "experts.down_proj")):
            tensors[name] = tensor
            continue
        experts, columns, rows = tensor.shape
        shape = (experts, rows, columns // 32)
        tensors[f"{name}_blocks"] = torch.randint(0, 256, (*shape, 16), dtype=torch.uint8)
        tensors[f"{name}_scales"] = torch.randint(116, 122, shape, dtype=torch.uint8)
    save_file(tensors, file, metadata={"format": "pt"})
    return folder


def test_experts_are_kept_to_the_bit(tmp_path: Path, some_text: Path) -> None:
    model = published(tmp_path / "q")
    job = Job(folder=tmp_path, model=model, text=some_text)
    result = job.run("run", "modifier=keep", "scheme=mxfp4a16", DENSE)
    assert result["verify"]["ok"] is True
    source = opened(SafetensorsSource.of_file(model / "model.safetensors"), CONFIG, "float32")
    found = meanings(tmp_path / "run" / "checkpoint")
    assert len(found) == 2 * EXPERTS * 3
    for layer in range(2):
        prefix = f"model.layers.{layer}.mlp.experts"
        fused = [f"{prefix}.{name}" for name in ("gate_up_proj", "down_proj")]
        gate_up, down = source.read(fused).values()
        for index in range(EXPERTS):
            meant = {
                "gate_proj": gate_up[index, :, ::2].T,
                "up_proj": gate_up[index, :, 1::2].T,
                "down_proj": down[index].T,
            }
            for name, weight in meant.items():
                kept = found[f"{prefix}.{index}.{name}"]
                assert torch.equal(kept.float(), weight), (layer, index, name)


def test_dense_attention_beside_them_is_named(tmp_path: Path, some_text: Path) -> None:
    job = Job(folder=tmp_path, model=published(tmp_path / "q"), text=some_text)
    with pytest.raises(UserError, match=r"cannot keep .*self_attn.*: the source has it dense"):
        job.run("run", "modifier=keep", "scheme=mxfp4a16")
