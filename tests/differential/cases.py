"""What is compared: every preset, and what the presets leave out, each in both programs' words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from compressed_tensors.quantization.quant_scheme import PRESET_SCHEMES

PACKED_BY_US = {"W2A4", "W2A8", "W3A4", "W3A8", "W4A4", "W4A8", "W5A8", "W6A8", "W7A8", "W4AFP8"}
NEEDS_DATA = {"FP8", "NVFP4"}
ROUTERS = "re:.*mlp[.]gate$"


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """`ours`: overrides; `groups` or `preset`: what the peer is told, with layout `format`.

    `data`: whether inputs are calibrated.
    """

    name: str
    ours: tuple[str, ...]
    preset: str | None = None
    groups: dict[str, Any] = field(default_factory=dict)
    format: str | None = None
    data: bool = False


SINCE_020 = ("MXFP4XFP8", "MXFP6A16", "MXFP6A8")
"""Presets of compressed-tensors 0.20; llm-compressor 0.14 has 0.19."""


def presets() -> list[Case]:
    """One case for each preset; two where presswork packs what the peer does not: both layouts."""
    cases = []
    for name in PRESET_SCHEMES:
        if name == "UNQUANTIZED" or name in SINCE_020:  # there is nothing to compare
            continue
        ours, data = f"scheme={name.lower()}", name in NEEDS_DATA
        if name in PACKED_BY_US:
            cases.append(
                Case(name=f"{name}-packed", ours=(ours,), preset=name, format="pack-quantized")
            )
            bytes_ = (ours, "scheme.format=int-quantized")
            cases.append(Case(name=f"{name}-bytes", ours=bytes_, preset=name))
        else:
            cases.append(Case(name=name, ours=(ours,), preset=name, data=data))
    return cases


def _weights(**args: Any) -> dict[str, Any]:
    return {"targets": ["Linear"], "weights": args}


TOKENS = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
WEIGHTS = ("scheme=w8a8", "scheme.format=null", "scheme.input_activations=null")


def _static(symmetric: bool, observer: str) -> Case:
    inputs = {"num_bits": 8, "strategy": "tensor", "symmetric": symmetric, "observer": observer}
    word = str(symmetric).lower()
    return Case(
        name=f"W8A8-static-{'sym' if symmetric else 'asym'}-{observer}",
        ours=(
            "scheme=w8a8",
            "scheme.input_activations.strategy=tensor",
            "scheme.input_activations.dynamic=false",
            f"scheme.input_activations.symmetric={word}",
            f"+scheme.input_activations.observer={observer}",
        ),
        groups={
            "g": {
                "targets": ["Linear"],
                "weights": {"num_bits": 8, "strategy": "channel"},
                "input_activations": inputs,
            }
        },
        data=True,
    )


def others() -> list[Case]:
    """Strategies, symmetries and widths that no preset has, and one scheme of several formats."""
    cases = [
        Case(
            name=f"W{bits}A16-channel-{'sym' if symmetric else 'asym'}",
            ours=(
                *WEIGHTS,
                f"scheme.weights.num_bits={bits}",
                f"scheme.weights.symmetric={str(symmetric).lower()}",
            ),
            groups={"g": _weights(num_bits=bits, strategy="channel", symmetric=symmetric)},
        )
        for bits, symmetric in [(2, False), (3, True), (4, False), (5, False), (8, False)]
    ]
    cases += [
        Case(
            name="W4A16-group64",
            ours=("scheme=w4a16_g64",),
            groups={"g": _weights(num_bits=4, strategy="group", group_size=64)},
        ),
        Case(
            name="W4A16-tensor-asym",
            ours=(
                *WEIGHTS,
                "scheme.weights.num_bits=4",
                "scheme.weights.strategy=tensor",
                "scheme.weights.symmetric=false",
            ),
            groups={"g": _weights(num_bits=4, strategy="tensor", symmetric=False)},
        ),
        Case(
            name="W6A16-group32-asym",
            ours=(
                "scheme=w6a16",
                "scheme.weights.group_size=32",
                "scheme.weights.symmetric=false",
            ),
            groups={"g": _weights(num_bits=6, strategy="group", group_size=32, symmetric=False)},
        ),
        Case(
            name="W8A8-asym",
            ours=("scheme=w8a8", "scheme.weights.symmetric=false"),
            groups={
                "g": {
                    **_weights(num_bits=8, strategy="channel", symmetric=False),
                    "input_activations": TOKENS,
                }
            },
        ),
        Case(
            name="FP8-weights-only",
            ours=(*WEIGHTS, "scheme.weights.type=float"),
            groups={"g": _weights(num_bits=8, type="float", strategy="channel")},
        ),
        Case(
            name="FP8-block-96x80",
            ours=("scheme=fp8_block", "scheme.weights.block_structure=[96,80]"),
            groups={
                "g": {
                    **_weights(
                        num_bits=8, type="float", strategy="block", block_structure=[96, 80]
                    ),
                    "input_activations": {
                        "num_bits": 8,
                        "type": "float",
                        "strategy": "group",
                        "group_size": 128,
                        "dynamic": True,
                    },
                }
            },
        ),
    ]
    for symmetric in (True, False):
        for observer in ("static_minmax", "minmax", "memoryless_minmax"):
            cases.append(_static(symmetric, observer))
    return [*cases, mixed()]


def mixed() -> Case:
    """Attention in W8A16, down projections in FP8, the rest in W4A16."""
    fp8 = {"num_bits": 8, "type": "float", "strategy": "channel"}
    return Case(
        name="mixed",
        ours=("scheme=mixed",),
        groups={
            "attention": {
                **_weights(num_bits=8, strategy="channel"),
                "targets": ["re:.*self_attn[.].*_proj$"],
            },
            "down": {
                "targets": ["re:.*down_proj$"],
                "weights": fp8,
                "input_activations": {**fp8, "strategy": "token", "dynamic": True},
            },
            "rest": {
                "targets": ["re:.*(gate|up)_proj$"],
                "weights": {"num_bits": 4, "strategy": "group", "group_size": 128},
            },
        },
    )


CASES = {case.name: case for case in [*presets(), *others()]}
