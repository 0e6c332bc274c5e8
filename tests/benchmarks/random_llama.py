"""A llama with random weights as a transformers folder, written layer by layer.

`python -m tests.benchmarks.random_llama FOLDER --layers 8 --hidden 2048` needs the memory of one
layer only. Its tokenizer maps bytes to tokens, so any text will do.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """Widths of a llama; `vocab` must hold the 258 tokens of the byte tokenizer."""

    layers: int = 8
    hidden: int = 2048
    intermediate: int = 5632
    heads: int = 32
    kv_heads: int = 8
    vocab: int = 1024

    @property
    def kv(self) -> int:
        return self.hidden // self.heads * self.kv_heads


def write_model(folder: Path, shape: Shape, seed: int = 0) -> Path:
    """Write config, tokenizer and one bfloat16 shard a layer; returns `folder`."""
    import torch
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(seed)
    weight_map: dict[str, str] = {}

    def draw(rows: int, columns: int) -> torch.Tensor:
        # The scale at which a random layer keeps the size of what goes through it.
        drawn = torch.randn(rows, columns, generator=generator) * columns**-0.5
        return drawn.to(torch.bfloat16)

    def save(name: str, tensors: dict[str, torch.Tensor]) -> None:
        save_file(tensors, folder / name, metadata={"format": "pt"})
        weight_map.update(dict.fromkeys(tensors, name))

    ones = torch.ones(shape.hidden, dtype=torch.bfloat16)
    for index in range(shape.layers):
        prefix = f"model.layers.{index}"
        widths = {
            "self_attn.q_proj": (shape.hidden, shape.hidden),
            "self_attn.k_proj": (shape.kv, shape.hidden),
            "self_attn.v_proj": (shape.kv, shape.hidden),
            "self_attn.o_proj": (shape.hidden, shape.hidden),
            "mlp.gate_proj": (shape.intermediate, shape.hidden),
            "mlp.up_proj": (shape.intermediate, shape.hidden),
            "mlp.down_proj": (shape.hidden, shape.intermediate),
        }
        layer = {f"{prefix}.{name}.weight": draw(*size) for name, size in widths.items()}
        for norm in ("input_layernorm", "post_attention_layernorm"):
            layer[f"{prefix}.{norm}.weight"] = ones.clone()
        save(f"model-layer-{index:03d}.safetensors", layer)
    outside = {
        "model.embed_tokens.weight": draw(shape.vocab, shape.hidden),
        "model.norm.weight": ones.clone(),
        "lm_head.weight": draw(shape.vocab, shape.hidden),
    }
    save("model-outside.safetensors", outside)
    index_text = json.dumps({"metadata": {}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(index_text, encoding="utf-8")
    _write_config(folder, shape)
    write_tokenizer(folder)
    return folder


def _write_config(folder: Path, shape: Shape) -> None:
    from transformers import LlamaConfig

    config = LlamaConfig(
        vocab_size=shape.vocab,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        max_position_embeddings=2048,
        bos_token_id=256,
        eos_token_id=257,
        dtype="bfloat16",
    )
    config.architectures = ["LlamaForCausalLM"]
    config.save_pretrained(folder)


def write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {letter: place for place, letter in enumerate([*letters, "<s>", "</s>"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    fast.save_pretrained(folder)


TINY = Shape(layers=4, hidden=128, intermediate=256, heads=4, kv_heads=2, vocab=320)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    for name in ("layers", "hidden", "intermediate", "heads", "kv_heads", "vocab"):
        default = getattr(Shape(), name)
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    given = vars(parser.parse_args())
    write_model(given.pop("folder"), Shape(**given))


if __name__ == "__main__":
    main()
