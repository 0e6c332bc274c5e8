"""Blueprint of a model from the tensor names, shapes and dtypes of its checkpoint: an outline.

No model class is needed, and neither torch nor transformers is imported, so that models that
transformers does not know can be outlined. What only a class can tell, such as pairs of a norm and
Linears, stays empty.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol

from pipeline.errors import UserError
from stages.model.blueprint import DTYPE_BYTES, SHARED, Blueprint, LinearSpec, Subgraph
from stages.model.experts.cut import Cut
from stages.model.experts.fused_names import fused_cuts, text_type
from stages.model.families import fused_groups, score
from stages.model.structure.tied_head import tied_head
from stages.model.structure.towers import tower_units

UNIT = re.compile(r"(.+?)\.(\d+)\.")
"""A unit of work: what tensor names have in common up to the first number."""

NUMBER = re.compile(r"[0-9]{1,18}")

DTYPES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
NO_LINEAR = re.compile(
    r"embed|conv|norm|(?:^|\.)(?:wte|wpe|relative_attention_bias)(?:\.|$)|(?:^|\.)ln_?\w*$", re.I
)
"""Modules with a two-dimensional weight that are not Linears."""

TRANSPOSED = re.compile(r"\.(?:c_attn|q_attn|c_proj|c_fc)$")
"""Modules that GPT-2 and its relatives store as [in, out]; in other models they are Linears."""

EMBEDDINGS = (
    *("embed_tokens", "tok_embeddings", "wte", "word_embeddings", "embed_in", "embedding"),
    SHARED,
)
HEADS = ("lm_head", "embed_out", "proj_out", "output_projection", "output", "head")
GENERATES = re.compile(r"For(?:CausalLM|ConditionalGeneration)$|LMHeadModel$")
TEXT = ("text_config", "llm_config", "language_config")


class Spec(Protocol):
    """A tensor's shape and dtype, such as a `TensorSpec` of stages.weights has."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> str: ...


def outline_of(config: Mapping[str, Any], specs: Mapping[str, Spec], *, why: str) -> Blueprint:
    """The outline of a checkpoint: `specs` describes its tensors, `config` is its config.json.

    `why` is the reason for an outline, for messages. Raises UserError for a checkpoint without any
    Linear in a numbered unit.
    """
    cuts = fused_cuts(specs, text_type(config, TEXT))
    specs = _taken_apart(specs, cuts)
    names = sorted(specs, key=natural)
    ends = _Ends.of(config, specs, names)
    units = _units(names)
    turned = {name for tensors in units.values() for name in _turned(tensors, specs)}
    specs = {
        name: _Part(spec.shape[::-1], spec.dtype) if name in turned else spec
        for name, spec in specs.items()
    }
    linears = {unit: tuple(_linears(tensors, specs, ends)) for unit, tensors in units.items()}
    linears = {unit: found for unit, found in linears.items() if found}
    towers = tower_units(linears, config, TEXT, ends.embedding)
    layers = {u: tensors for u, tensors in units.items() if u in linears and u not in towers}
    if not layers:
        raise UserError(
            "no tensor of this checkpoint is the weight of a Linear in a numbered layer "
            "(like model.layers.3.mlp.up_proj.weight)",
            remedy="give a transformer's checkpoint in float32, float16 or bfloat16",
        )
    inside = {name for tensors in layers.values() for name in tensors}
    dtype = _dtype(config, specs)
    outside = {name: name for name in names if name not in inside} | ends.tie()
    return Blueprint(
        config=dict(config),
        architecture=_architecture(config),
        model_type=str(config.get("model_type")),
        dtype=dtype,
        experts="all",
        tied=ends.tied,
        vocab_size=ends.shape[0],
        hidden_size=ends.shape[1],
        decoder="",
        embedding=ends.embedding,
        head=ends.head,
        layers=tuple(
            _unit(unit, index, tensors, specs, linears[unit], dtype)
            for index, (unit, tensors) in enumerate(layers.items())
        ),
        outside=outside,
        outside_shapes={name: specs[stored].shape for name, stored in outside.items()},
        outside_linears=_outside_linears(outside, specs, ends),
        outlined=why,
        cuts=cuts,
        turned=tuple(name for name in names if name in turned),
        notes=tuple(_notes(names, specs)),
    )


def needs_class(blueprint: Blueprint) -> UserError:
    """The error of a stage that has to run a model of which there is only an outline."""
    return UserError(
        f"calibrating, propagating and evaluating need the model's class, but {blueprint.outlined}",
        remedy="say eval=none, modifier=rtn and a scheme without calibrated inputs (such as "
        "fp8_dynamic, w4a16, nvfp4a16); for a model that transformers knows graph=calibrated does "
        "the rest as well",
    )


def natural(name: str) -> list[tuple[int, str]]:
    """Sort key for tensor names that orders numbers by value: layers.2 before layers.10."""
    parts = name.split(".")
    return [(int(part), "") if NUMBER.fullmatch(part) else (-1, part) for part in parts]


@dataclass(frozen=True, slots=True)
class _Part:
    """Shape and dtype of a part of a tensor."""

    shape: tuple[int, ...]
    dtype: str


def _taken_apart(specs: Mapping[str, Spec], cuts: Mapping[str, Cut]) -> dict[str, Spec]:
    """`specs` with the parts of fused tensors in their place."""
    fused = {cut.stored for cut in cuts.values()}
    found: dict[str, Spec] = {name: spec for name, spec in specs.items() if name not in fused}
    for name, cut in cuts.items():
        stored = specs[cut.stored]
        found[name] = _Part(cut.shape(stored.shape), stored.dtype)
    return found


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    first = named[0] if isinstance(named, list) and named else config.get("model_type")
    return str(first)


class _Ends:
    """Token embedding and lm_head, found by name outside the units ("" if there is none).

    `shape` is (vocabulary, hidden size), zeros if neither tensors nor config tell.
    """

    def __init__(self, embedding: str, head: str, *, tied: bool, shape: tuple[int, int]) -> None:
        self.embedding, self.head, self.tied, self.shape = embedding, head, tied, shape
        self.stored = True

    @classmethod
    def of(
        cls, config: Mapping[str, Any], specs: Mapping[str, Spec], names: Iterable[str]
    ) -> _Ends:
        flat = [n.removesuffix(".weight") for n in names if _is_matrix(n, specs[n])]
        flat = [name for name in flat if not UNIT.match(f"{name}.")]
        embedding, head = _named(flat, EMBEDDINGS), _named(flat, HEADS)
        parts = [config, *(part for key in TEXT if isinstance(part := config.get(key), dict))]
        stated = [part["tie_word_embeddings"] for part in parts if "tie_word_embeddings" in part]
        shape = specs[f"{embedding}.weight"].shape if embedding else (0, 0)
        sizes = [
            next((part[key] for part in parts if isinstance(part.get(key), int)), size)
            for key, size in zip(("vocab_size", "hidden_size"), shape, strict=True)
        ]
        tied = bool(embedding) and (bool(stated[0]) if stated else not head)
        ends = cls(embedding, head, tied=tied, shape=(sizes[0], sizes[1]))
        if tied and not head:
            ends.head, ends.stored = tied_head(config, EMBEDDINGS), False
        rows = [name for name in flat if specs[f"{name}.weight"].shape[0] == sizes[0]]
        if stated and not tied and not head and rows == [embedding]:
            if GENERATES.search(_architecture(config)):
                raise UserError(
                    "config.json says tie_word_embeddings: false, and no tensor is the lm_head",
                    remedy="fetch the model again; if the lm_head is the embedding, say "
                    "tie_word_embeddings: true there",
                )
        return ends

    def tie(self) -> dict[str, str]:
        """The parameter of a tied lm_head without a tensor -> the embedding's tensor."""
        return {} if self.stored else {f"{self.head}.weight": f"{self.embedding}.weight"}


def _named(prefixes: Iterable[str], leaves: tuple[str, ...]) -> str:
    for leaf in leaves:
        for prefix in prefixes:
            if prefix.rpartition(".")[2] == leaf:
                return prefix
    return ""


def _units(names: Iterable[str]) -> dict[str, list[str]]:
    """Unit -> its tensors; `names` are in natural order, and so are the units."""
    units: dict[str, list[str]] = {}
    for name in names:
        found = UNIT.match(name)
        if found:
            units.setdefault(f"{found[1]}.{found[2]}", []).append(name)
    return units


def _unit(
    name: str,
    index: int,
    tensors: list[str],
    specs: Mapping[str, Spec],
    linears: tuple[LinearSpec, ...],
    dtype: str,
) -> Subgraph:
    parameters = sum(prod(specs[tensor].shape) for tensor in tensors)
    return Subgraph(
        name=name,
        index=index,
        kind="Unit",
        linears=linears,
        tensors={tensor: tensor for tensor in tensors},
        shapes={tensor: specs[tensor].shape for tensor in tensors},
        parameters=parameters,
        bytes=parameters * DTYPE_BYTES[dtype],
        fused=fused_groups(linears),
    )


def _turned(names: Iterable[str], specs: Mapping[str, Spec]) -> Iterator[str]:
    """The weights of a unit that the disk has as [in, out]: all of them, if c_attn is wide."""
    matrices = [name for name in names if _is_matrix(name, specs[name])]
    if any(
        name.endswith(".c_attn.weight") and specs[name].shape[1] > specs[name].shape[0]
        for name in matrices
    ):
        yield from (n for n in matrices if TRANSPOSED.search(n.removesuffix(".weight")))


def _linears(names: Iterable[str], specs: Mapping[str, Spec], ends: _Ends) -> Iterator[LinearSpec]:
    for name in names:
        prefix = name.removesuffix(".weight")
        if not _is_matrix(name, specs[name]) or score(prefix) or NO_LINEAR.search(prefix):
            continue
        rows, columns = specs[name].shape
        if prefix.rpartition(".")[2] in HEADS and rows == ends.shape[0]:
            continue  # the lm_head of an extra prediction layer
        yield _linear(prefix, rows, columns, specs)


def _linear(prefix: str, rows: int, columns: int, specs: Mapping[str, Spec]) -> LinearSpec:
    return LinearSpec(
        name=prefix,
        prefix=prefix,
        in_features=columns,
        out_features=rows,
        bias=f"{prefix}.bias" in specs,
        expert=".experts." in prefix,
    )


def _outside_linears(
    outside: Mapping[str, str], specs: Mapping[str, Spec], ends: _Ends
) -> tuple[LinearSpec, ...]:
    linears = []
    for name, stored in outside.items():
        prefix = name.removesuffix(".weight")
        is_linear = prefix == ends.head or not (NO_LINEAR.search(prefix) or score(prefix))
        if prefix != ends.embedding and is_linear and _is_matrix(name, specs[stored]):
            rows, columns = specs[stored].shape
            linears.append(_linear(prefix, rows, columns, specs))
    return tuple(linears)


def _is_matrix(name: str, spec: Spec) -> bool:
    return name.endswith(".weight") and len(spec.shape) == 2 and spec.dtype in DTYPES


def _dtype(config: Mapping[str, Any], specs: Mapping[str, Spec]) -> str:
    """The dtype that the config states, else that of most weights."""
    for part in (config, *(config.get(key) for key in TEXT)):
        for key in ("dtype", "torch_dtype"):
            stated = part.get(key) if isinstance(part, Mapping) else None
            if isinstance(stated, str) and stated.removeprefix("torch.") in DTYPES.values():
                return stated.removeprefix("torch.")
    sizes: Counter[str] = Counter()
    for name, spec in specs.items():
        if _is_matrix(name, spec):
            sizes[DTYPES[spec.dtype]] += prod(spec.shape)
    return sizes.most_common(1)[0][0]


def _notes(names: Iterable[str], specs: Mapping[str, Spec]) -> Iterator[str]:
    """Notes on tensors that stay dense although one might expect them to be compressed."""
    fused = [name for name in names if "expert" in name and len(specs[name].shape) > 2]
    if fused:
        yield f"experts that are fused into one tensor stay as they are: {_some(fused)}"
    other = [
        name
        for name in names
        if name.endswith(".weight") and len(specs[name].shape) == 2 and UNIT.match(name)
        if specs[name].dtype not in DTYPES
    ]
    if other:
        kinds = ", ".join(sorted({specs[name].dtype for name in other}))
        yield f"weights stored as {kinds} stay as they are: {_some(other)}"


def _some(names: list[str]) -> str:
    patterns = list(dict.fromkeys(re.sub(r"(?<=\.)\d+(?=\.|$)", "*", name) for name in names))
    more = f" and {len(patterns) - 4} more patterns" if len(patterns) > 4 else ""
    return f"{', '.join(patterns[:4])}{more} ({len(names)} tensors)"
