"""Every difference between two checkpoint folders."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

CALIBRATED = ("input_scale", "input_zero_point", "input_global_scale")


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """`kind` is "names", "form", "bytes", "calibrated" or "config"; `what` names the place."""

    kind: str
    what: str
    detail: str


def tensors_of(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint by name."""
    found: dict[str, Tensor] = {}
    for path in sorted(folder.glob("*.safetensors")):
        found |= load_file(path)
    return found


def config_of(folder: Path) -> dict[str, Any]:
    """`quantization_config` of a checkpoint; empty where it has none."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return dict(config.get("quantization_config", {}))


def compare(ours: Path, theirs: Path, *, tolerance: float) -> list[Difference]:
    """What is not equal; calibrated parameters may differ by `tolerance`, relative."""
    a, b = tensors_of(ours), tensors_of(theirs)
    found = [*_names(a, b), *_configs(config_of(ours), config_of(theirs))]
    for name in sorted(a.keys() & b.keys()):
        found += _tensor(name, a[name], b[name], tolerance)
    return found


def _names(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> Iterator[Difference]:
    for name in sorted(a.keys() ^ b.keys()):
        side = "only ours" if name in a else "only theirs"
        yield Difference(kind="names", what=name, detail=side)


def _tensor(name: str, a: Tensor, b: Tensor, tolerance: float) -> Iterator[Difference]:
    if a.shape != b.shape or a.dtype != b.dtype:
        detail = f"{a.dtype} {list(a.shape)}, theirs {b.dtype} {list(b.shape)}"
        yield Difference(kind="form", what=name, detail=detail)
        return
    mine, other = (t.contiguous().reshape(-1).view(torch.uint8) for t in (a, b))
    if torch.equal(mine, other):
        return
    if name.endswith(CALIBRATED):
        x, y = a.double(), b.double()
        apart = float(((x - y).abs() / y.abs().clamp(min=1e-30)).max())
        if name.endswith("zero_point"):
            apart = float((x - y).abs().max()) / 256
        if apart > tolerance:
            yield Difference(kind="calibrated", what=name, detail=f"{apart:.1e} apart")
        return
    part = float((mine != other).double().mean())
    yield Difference(kind="bytes", what=name, detail=f"{part:.2%} of the bytes")


def _configs(a: Mapping[str, Any], b: Mapping[str, Any]) -> Iterator[Difference]:
    for path, (x, y) in _leaves(a, b, ""):
        yield Difference(kind="config", what=path, detail=f"{x!r}, theirs {y!r}")


def _leaves(a: Any, b: Any, path: str) -> Iterator[tuple[str, tuple[Any, Any]]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for key in sorted(a.keys() | b.keys()):
            yield from _leaves(a.get(key), b.get(key), f"{path}.{key}" if path else key)
    elif isinstance(a, list) and isinstance(b, list):
        if sorted(map(str, a)) != sorted(map(str, b)):
            yield path, (a, b)
    elif a != b:
        yield path, (a, b)
