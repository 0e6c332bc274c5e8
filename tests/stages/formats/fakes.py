"""A tiny blueprint and artifacts in a folder, for tests that need no model and no store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.content import Content
from pipeline.errors import UserError
from pipeline.sha256 import file_sha256
from stages.model.blueprint import Blueprint, LinearSpec, Subgraph

ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")


def blueprint(
    *, layers: int = 2, width: int = 64, inner: int = 128, experts: int = 0, dtype: str = "bfloat16"
) -> Blueprint:
    """A llama-like model, or a mixture of `experts` with per-expert names on disk."""
    return Blueprint(
        config={"model_type": "tiny", "architectures": ["Tiny"], "dtype": dtype},
        architecture="Tiny",
        model_type="tiny",
        dtype=dtype,
        experts="all",
        tied=False,
        vocab_size=32,
        hidden_size=width,
        decoder="model",
        embedding="model.embed_tokens",
        head="lm_head",
        layers=tuple(_layer(i, width, inner, experts) for i in range(layers)),
        outside={
            "model.embed_tokens.weight": "model.embed_tokens.weight",
            "model.norm.weight": "model.norm.weight",
            "lm_head.weight": "lm_head.weight",
        },
        outside_shapes={
            "model.embed_tokens.weight": (32, width),
            "model.norm.weight": (width,),
            "lm_head.weight": (32, width),
        },
        outside_linears=(
            LinearSpec(name="lm_head", prefix="lm_head", in_features=width, out_features=32),
        ),
    )


def _layer(index: int, width: int, inner: int, experts: int) -> Subgraph:
    root = f"model.layers.{index}"
    linears = [_linear(f"{root}.self_attn.{name}", width, width) for name in ATTENTION]
    homes = [f"{root}.mlp.experts.{e}" for e in range(experts)] or [f"{root}.mlp"]
    fused: list[tuple[str, ...]] = [tuple(x.name for x in linears[:3])]
    for home in homes:
        linears += [
            _linear(f"{home}.gate_proj", width, inner, expert=experts > 0),
            _linear(f"{home}.up_proj", width, inner, expert=experts > 0),
            _linear(f"{home}.down_proj", inner, width, expert=experts > 0),
        ]
        fused.append((f"{home}.gate_proj", f"{home}.up_proj"))
    shapes: dict[str, tuple[int, ...]] = {
        f"{x.name}.weight": (x.out_features, x.in_features) for x in linears
    }
    for norm in ("input_layernorm", "post_attention_layernorm"):
        shapes[f"{root}.{norm}.weight"] = (width,)
    if experts:
        shapes[f"{root}.mlp.gate.weight"] = (experts, width)
    parameters = sum(int(a) * (b[0] if b else 1) for a, *b in shapes.values())
    return Subgraph(
        name=root,
        index=index,
        kind="TinyLayer",
        linears=tuple(linears),
        tensors={name: name for name in shapes},
        shapes=shapes,
        parameters=parameters,
        bytes=2 * parameters,
        fused=tuple(fused),
    )


def _linear(name: str, inputs: int, outputs: int, *, expert: bool = False) -> LinearSpec:
    return LinearSpec(
        name=name, prefix=name, in_features=inputs, out_features=outputs, expert=expert
    )


@dataclass
class FakeArtifact:
    """A folder that looks like a result in the store (and, while being written, like a draft)."""

    path: Path
    key: str = "0" * 64
    meta: dict[str, Any] = field(default_factory=dict)
    last: dict[str, Callable[[Mapping[str, str]], str]] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(sorted(path.name for path in self.path.iterdir()))

    def content(self, name: str) -> None:
        """Nothing is held in memory here."""

    def put(self, name: str, content: Content) -> None:
        content.write(self.path / name)

    def file(self, name: str) -> Path:
        if not (self.path / name).is_file():
            raise UserError(f"no file {name}")
        return self.path / name

    def json(self, name: str) -> Any:
        return json.loads(self.file(name).read_text())

    def write_json(self, name: str, value: Any) -> None:
        (self.path / name).write_text(json.dumps(value))

    def write_last(self, name: str, text_of: Callable[[Mapping[str, str]], str]) -> None:
        self.last[name] = text_of

    def finish(self) -> None:
        """Write what is written last, as the store does when a draft is committed."""
        files = sorted(path for path in self.path.rglob("*") if path.is_file())
        hashes = {path.relative_to(self.path).as_posix(): file_sha256(path) for path in files}
        for name, text_of in self.last.items():
            (self.path / name).write_text(text_of(hashes), encoding="utf-8")


def names(linears: Sequence[LinearSpec]) -> list[str]:
    """Their names."""
    return [linear.name for linear in linears]
