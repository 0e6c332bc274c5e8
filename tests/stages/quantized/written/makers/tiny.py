"""The tiny llama that every writer was given, and how what it wrote is kept.

Needs torch, transformers and safetensors, of whatever versions the writer wants; nothing of ours.
Linears have 64 or 96 columns, two or three groups of 32.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

DATA = Path(__file__).resolve().parents[1] / "data"
KEPT = ("config.json", "hf_quant_config.json", "quantize_config.json", "model.safetensors")


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes to tokens, with one token to end a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {letter: index for index, letter in enumerate([*letters, "<s>", "</s>"])}
    made = Tokenizer(models.BPE(vocab=words, merges=[]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>", eos_token="</s>")


def model(
    dtype: torch.dtype = torch.bfloat16, *, hidden: int = 64, inner: int = 96
) -> LlamaForCausalLM:
    """Two layers with random weights, the same on every machine of one version of torch."""
    config = LlamaConfig(
        hidden_size=hidden,
        intermediate_size=inner,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        vocab_size=258,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=256,
        eos_token_id=257,
    )
    config.architectures = ["LlamaForCausalLM"]
    made = LlamaForCausalLM(config).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in sorted(made.named_parameters()):
            if weight.ndim == 2:
                drawn = torch.randn(weight.shape, generator=generator)
                weight.copy_(drawn * weight.shape[1] ** -0.5 * (1 if "embed" in name else 2))
    return made.to(dtype)


def saved(folder: Path, **options: Any) -> Path:
    """The model and its tokenizer in a folder."""
    model(**options).save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return folder


def sha256(weight: Tensor) -> str:
    """Of a weight's float32 numbers in order, without the sign of zeros."""
    numbers = (weight.detach().float() + 0.0).contiguous().numpy().astype("<f4")
    return hashlib.sha256(numbers.tobytes()).hexdigest()


def keep(name: str, folder: Path, decoded: Mapping[str, Tensor], packages: tuple[str, ...]) -> None:
    """Keep what a writer wrote into `folder` as test data `name`, with what it decodes.

    `decoded`: the writer's own dequantized weights [out, in] by the name of the module.
    """
    target = DATA / name
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    for file in KEPT:
        if (folder / file).exists():
            shutil.copy(folder / file, target / file)
    dtypes = {str(weight.dtype).removeprefix("torch.") for weight in decoded.values()}
    (dtype,) = dtypes
    stated = {
        "writer": {package: version(package) for package in packages},
        "dtype": dtype,
        "sha256": {module: sha256(weight) for module, weight in sorted(decoded.items())},
    }
    (target / "decoded.json").write_text(json.dumps(stated, indent=1) + "\n")
    sys.stdout.write(f"{name}: {len(decoded)} modules\n")
