"""Loaders of a checkpoint: what is known of each by its quant_method and formats.

For vLLM this was read in the source of its release, for transformers in the list of methods of the
installed one; compressed-tensors formats are looked up in `stages.schemes.engine_support`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from stages.inspect.checkpoint import Checkpoint
from stages.inspect.rows import Row
from stages.schemes.engine_support import VLLM, packs_zero_points, reader

VLLM_METHODS = {
    "gptq": "4 and 8 bits, symmetric",
    "awq": "4 bits",
    "fp8": "on GPUs from Turing on; blocks with dynamic inputs only",
    "modelopt": "FP8, NVFP4 and MXFP8, on GPUs",
    "auto-round": "as `inc`",
    "torchao": "with torchao installed",
    "mxfp4": "on GPUs",
    "mxfp8": "on GPUs",
    "quark": "on GPUs",
}
"""quant_method -> what vLLM's loader takes of it."""
NEEDS = {
    "gptq": "gptqmodel",
    "awq": "gptqmodel",
    "auto-round": "auto-round",
    "bitsandbytes": "bitsandbytes",
    "hqq": "hqq",
    "quanto": "optimum-quanto",
    "torchao": "torchao",
    "mxfp4": "kernels, or decompresses",
    "quark": "amd-quark",
}
"""quant_method -> the package that transformers needs for it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Load:
    """Whether a loader takes a checkpoint; `loads` is None where only a run would tell."""

    engine: str
    version: str
    loads: bool | None
    why: str

    def as_json(self) -> dict[str, Any]:
        return {
            "engine": self.engine,
            "version": self.version,
            "loads": self.loads,
            "why": self.why,
        }


def loaders(checkpoint: Checkpoint, rows: Sequence[Row]) -> list[Load]:
    """What is known of presswork, transformers and vLLM, none of which is run here."""
    method = checkpoint.method
    if method is None:
        return [
            Load(engine=name, version=v, loads=None, why="dense: what loads the model loads it")
            for name, v in (("transformers", version("transformers")), ("vLLM", VLLM))
        ]
    own = Load(
        engine="presswork",
        version=version("presswork"),
        loads=not checkpoint.unread,
        why=checkpoint.unread.partition("\n")[0] or "as a source; modifier=keep takes codes over",
    )
    return [own, _transformers(method, rows), _vllm(method, rows)]


def _transformers(method: str, rows: Sequence[Row]) -> Load:
    from transformers.quantizers.auto import AUTO_QUANTIZER_MAPPING

    installed = version("transformers")
    known = any(name == method or name.startswith(f"{method}_") for name in AUTO_QUANTIZER_MAPPING)
    if not known:
        why = f"it has no quant_method {method!r}"
        return Load(engine="transformers", version=installed, loads=False, why=why)
    needs = f"with {NEEDS[method]}" if method in NEEDS else "knows the method"
    if any(group is not None and packs_zero_points(group) for group in _groups(rows, method)):
        needs += (
            "; packed zero points from 5.23.0 on with CompressedTensorsConfig(dequantize=True) only"
        )
    return Load(engine="transformers", version=installed, loads=True, why=needs)


def _vllm(method: str, rows: Sequence[Row]) -> Load:
    if method != "compressed-tensors":
        why = VLLM_METHODS.get(method, f"it has no quant_method {method!r}")
        return Load(engine="vLLM", version=VLLM, loads=method in VLLM_METHODS, why=why)
    told = list(dict.fromkeys(_read_by_vllm(rows)))
    loads = all(known for known, _ in told)
    return Load(engine="vLLM", version=VLLM, loads=loads, why="; ".join(why for _, why in told))


def _read_by_vllm(rows: Sequence[Row]) -> Iterator[tuple[bool, str]]:
    for row in rows:
        group, name = row.format.group, row.format.label
        found = None if group is None else reader(group)
        if found is None:
            yield False, f"{name}: no loader is known"
        else:
            cpu = "runs" if not found.cpu else found.cpu
            yield True, f"{name} as {found.name} (GPU: {found.gpu}; CPU: {cpu})"


def _groups(rows: Sequence[Row], method: str) -> list[Any]:
    return [row.format.group for row in rows] if method == "compressed-tensors" else []
