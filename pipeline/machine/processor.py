"""Signature of this machine's processor: what decides how libraries sum on it.

BLAS, torch and numba choose their code by the vendor, the model and the instruction sets of a
processor, and by variables of the environment; other code sums in another order, and the last bits
differ. Read from the system in about a millisecond; no library is imported for it.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_FIRST = 8192
"""Bytes that hold the entry of the first processor: there may be hundreds."""

_FAMILIES = ("sse", "ssse3", "avx", "amx", "fma", "f16c")
"""What flags of x86 begin with that libraries choose code by."""

_VARIABLES = (
    *("ATEN_CPU_CAPABILITY", "DNNL_MAX_CPU_ISA", "ONEDNN_MAX_CPU_ISA", "MKL_CBWR"),
    *("MKL_ENABLE_INSTRUCTIONS", "MKL_DEBUG_CPU_TYPE", "OPENBLAS_CORETYPE"),
    *("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NPY_DISABLE_CPU_FEATURES"),
)
"""With which torch, oneDNN, MKL, OpenBLAS, numba and numpy are told to use other code."""
_GPU_VARIABLES = (
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "TORCH_BLAS_PREFER_CUBLASLT"),
    *("CUBLAS_WORKSPACE_CONFIG", "DISABLE_ADDMM_CUDA_LT", "PYTORCH_TUNABLEOP_ENABLED"),
)
"""With which cuBLAS and torch are told to multiply otherwise on a GPU."""


@cache
def processor() -> str:
    """Vendor, model and instruction sets of the processor, and the variables that overrule them."""
    return " ".join((*_found(_entry()), *_overruled(os.environ, _VARIABLES)))


def overruled_on_gpus() -> tuple[str, ...]:
    """The variables, NAME=value, that tell the libraries of GPUs to use other code."""
    return tuple(_overruled(os.environ, _GPU_VARIABLES))


def in_key() -> str:
    """What a key says of the CPU as a device, where sums depend on it."""
    return f"cpu, {processor()}"


def brief(signature: str) -> str:
    """The vendor and model of a signature, for messages."""
    return " ".join(signature.split(" ")[:2])


def _entry() -> dict[str, str]:
    """The first entry of /proc/cpuinfo; empty where there is none."""
    try:
        with _CPUINFO.open("rb", buffering=0) as file:
            text = file.read(_FIRST).decode(errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.partition("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _found(entry: Mapping[str, str]) -> tuple[str, ...]:
    if "vendor_id" in entry:
        model = f"{entry.get('cpu family', '')}-{entry.get('model', '')}"
        sets = (flag for flag in entry.get("flags", "").split() if flag.startswith(_FAMILIES))
        return (entry["vendor_id"], model, *sorted(sets))
    if "CPU implementer" in entry:  # ARM
        model = f"{entry['CPU implementer']}-{entry.get('CPU part', '')}"
        return (platform.machine(), model, *sorted(entry.get("Features", "").split()))
    return (platform.machine(), platform.processor().replace(" ", "_") or "unknown")


def _overruled(environment: Mapping[str, str], names: Iterable[str]) -> list[str]:
    return [f"{name}={environment[name]}" for name in names if environment.get(name)]
