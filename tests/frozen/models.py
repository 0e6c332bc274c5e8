"""Tiny language models with the same bytes on every machine: no torch, no library writes them.

Config, tokenizer and safetensors are written here byte by byte, and weights follow from integer
arithmetic: the identity of a model, and every key after it, can be stored in the repository.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LAYERS, HIDDEN, WIDE, HEADS, KV_HEADS, VOCAB, EXPERTS, EXPERT_WIDE = 2, 256, 384, 4, 2, 320, 4, 128
HEAD_DIM = HIDDEN // HEADS
BOS, EOS = 256, 257

COMMON: Mapping[str, Any] = {
    "attention_bias": False,
    "bos_token_id": BOS,
    "dtype": "bfloat16",
    "eos_token_id": EOS,
    "head_dim": HEAD_DIM,
    "hidden_act": "silu",
    "hidden_size": HIDDEN,
    "intermediate_size": WIDE,
    "max_position_embeddings": 512,
    "num_attention_heads": HEADS,
    "num_hidden_layers": LAYERS,
    "num_key_value_heads": KV_HEADS,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "vocab_size": VOCAB,
}
FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": False},
    "qwen3_moe": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "model_type": "qwen3_moe",
        "num_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": EXPERT_WIDE,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "norm_topk_prob": True,
        "use_sliding_window": False,
    },
}

Codes = NDArray[np.uint16]
"""bfloat16 values as their 16 bits."""


def write_model(folder: Path, family: str, **changes: Any) -> Path:
    """Write a model of `family` (a key of FAMILIES) as a transformers folder; returns `folder`.

    `changes` are other entries of its config.json; shapes of weights do not follow them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", {**COMMON, **FAMILIES[family], **changes})
    _write_json(folder / "tokenizer.json", _tokenizer())
    _write_json(
        folder / "tokenizer_config.json",
        {
            "bos_token": "<s>",
            "eos_token": "</s>",
            "pad_token": "</s>",
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )
    _write_safetensors(folder / "model.safetensors", dict(_tensors(family)))
    return folder


def write_text(path: Path, length: int = 40_000) -> Path:
    """A file of `length` ASCII characters with words of uneven frequency; returns `path`."""
    bits = np.random.PCG64(11)
    words = [
        "".join(chr(97 + int(letter) % 26) for letter in bits.random_raw(2 + rank % 7))
        for rank in range(199)
    ]
    ranks = (bits.random_raw(length) % 199) * (bits.random_raw(length) % 199) // 199
    text = " ".join(words[int(rank)] for rank in ranks)
    path.write_bytes(text[:length].encode())
    return path


def _tensors(family: str) -> Iterator[tuple[str, Codes]]:
    bits = np.random.PCG64(7)
    kv = KV_HEADS * HEAD_DIM
    yield "model.embed_tokens.weight", _weight(bits, VOCAB, HIDDEN)
    yield "model.norm.weight", _ones(HIDDEN)
    yield "lm_head.weight", _weight(bits, VOCAB, HIDDEN)
    for index in range(LAYERS):
        layer = f"model.layers.{index}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            yield f"{layer}.{norm}.weight", _ones(HIDDEN)
        for name, rows in (("q", HIDDEN), ("k", kv), ("v", kv), ("o", HIDDEN)):
            yield f"{layer}.self_attn.{name}_proj.weight", _weight(bits, rows, HIDDEN)
        if family == "llama":
            yield from _mlp(bits, f"{layer}.mlp", WIDE)
            continue
        for norm in ("q_norm", "k_norm"):
            yield f"{layer}.self_attn.{norm}.weight", _ones(HEAD_DIM)
        yield f"{layer}.mlp.gate.weight", _weight(bits, EXPERTS, HIDDEN)
        for expert in range(EXPERTS):
            yield from _mlp(bits, f"{layer}.mlp.experts.{expert}", EXPERT_WIDE)


def _mlp(bits: np.random.PCG64, prefix: str, wide: int) -> Iterator[tuple[str, Codes]]:
    yield f"{prefix}.gate_proj.weight", _weight(bits, wide, HIDDEN)
    yield f"{prefix}.up_proj.weight", _weight(bits, wide, HIDDEN)
    yield f"{prefix}.down_proj.weight", _weight(bits, HIDDEN, wide)


def _weight(bits: np.random.PCG64, rows: int, columns: int) -> Codes:
    """[rows, columns]: close to normal with deviation 0.05; one column in 16 is twice as wide."""
    halves = bits.random_raw(2 * rows * columns).view(np.uint16).reshape(rows * columns, 8)
    sums = halves.astype(np.int64).sum(axis=1) - 4 * 65535
    wide = 1 + (bits.random_raw(columns) % 16 == 0).astype(np.int64)
    return _bfloat16((((sums.reshape(rows, columns) * wide) >> 3) * 2.0**-17).astype(np.float32))


def _ones(size: int) -> Codes:
    return _bfloat16(np.ones(size, dtype=np.float32))


def _bfloat16(values: NDArray[np.float32]) -> Codes:
    """Round to nearest, ties to even."""
    whole = values.view(np.uint32)
    return ((whole + 0x7FFF + ((whole >> 16) & 1)) >> 16).astype(np.uint16)


def _write_safetensors(path: Path, tensors: Mapping[str, Codes]) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, codes in tensors.items():
        begin, end = end, end + codes.nbytes
        header[name] = {"dtype": "BF16", "shape": list(codes.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for codes in tensors.values():
            file.write(codes.astype("<u2").tobytes())


def _tokenizer() -> dict[str, Any]:
    """A byte-level tokenizer without merges: each byte of a text is a token."""
    vocabulary = {letter: place for place, letter in enumerate(_byte_letters())}
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    ends = {"<s>": BOS, "</s>": EOS}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": place, "content": text, **special, "special": True}
            for text, place in ends.items()
        ],
        "normalizer": None,
        "pre_tokenizer": {
            "type": "ByteLevel",
            "add_prefix_space": False,
            "trim_offsets": True,
            "use_regex": True,
        },
        "post_processor": None,
        "decoder": {
            "type": "ByteLevel",
            "add_prefix_space": True,
            "trim_offsets": True,
            "use_regex": True,
        },
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {**vocabulary, **ends},
            "merges": [],
        },
    }


def _byte_letters() -> list[str]:
    """The 256 printable letters that stand for bytes in GPT-2's byte-level alphabet, sorted."""
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    return sorted([chr(byte) for byte in printable] + [chr(256 + n) for n in range(68)])


def _write_json(path: Path, value: Any) -> None:
    path.write_bytes((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())
