"""Compile every kernel for a GPU that need not be here, and count its registers and spills.

    python -m tests.kernels.compiling 90

prints one JSON object a line: kernel, constants, registers, whether tensor cores multiply in TF32,
spilled bytes. Not in the interpreter:
TRITON_INTERPRET must not be set.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from stages.compress.observers import range_triton, search_triton
from stages.compress.solvers import gptq_triton, products_triton, rtn_triton

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
OPTIONS = ("num_warps", "num_stages")
FLOATS = ("binade", "step", "low", "high", "multiplier", "norm", "alpha")
FLOATS += tuple(f"scale_{name}" for name in FLOATS[:4])
INTEGERS = ("group_ptr", "best_ptr")


def launches() -> Iterator[tuple[Any, dict[str, Any], str]]:
    """(kernel, constants, dtype of the weight) of all launches."""
    for columns in (128, 512):
        shape = gptq_triton.shape_of_programs(columns)
        yield gptq_triton.nearest_plane_kernel, shape, "fp32"
        for refit, descend in ((True, True), (False, True), (True, False)):
            steps = {"REFIT": refit, "DESCEND": descend}
            yield gptq_triton.descend_kernel, {**shape, **steps}, "fp32"
    for width in (16, 32, 128, 4096):
        for square in (True, False):
            shape = {**search_triton.shape_of_programs(width), "SQUARE": square}
            yield search_triton.best_scale_kernel, shape, "fp32"
        yield range_triton.bounds_kernel, range_triton.shape_of_programs(width), "bf16"
    for transposed in (True, False):
        shape = {**products_triton.SHAPE, "TRANSPOSED": transposed}
        yield products_triton.add_product_kernel, shape, "fp32"
        single = {"n_count": 1, "out_lead": 1, "b_lead": 1}  # a launch makes constants of ones
        yield products_triton.add_product_kernel, {**shape, **single}, "fp32"
    for zero in (True, False):
        shape = {"DTYPE": tl.bfloat16, "ADD": zero, "ZERO": zero, "BLOCK": rtn_triton.BLOCK}
        yield rtn_triton.nearest_values_kernel, shape, "bf16"


def compiled(kernel: Any, given: dict[str, Any], dtype: str, capability: int) -> dict[str, Any]:
    """What the assembler says of one kernel."""
    constants = {name: value for name, value in given.items() if name not in OPTIONS}
    types = {name: _type(name, dtype) for name in kernel.arg_names}
    types.update(dict.fromkeys(constants, "constexpr"))
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if types[name].startswith("*")
    }
    source = ASTSource(fn=kernel, signature=types, constexprs=constants, attrs=aligned)
    options = {name: value for name, value in given.items() if name in OPTIONS}
    target = GPUTarget("cuda", capability, 32)
    ptx = triton.compile(source, target=target, options=options).asm["ptx"]
    said = _assembled(ptx, capability)
    return {
        "kernel": kernel.__name__,
        "constants": {name: str(value) for name, value in constants.items()},
        "registers": max(int(n) for n in re.findall(r"Used (\d+) registers", said)),
        "tf32": bool(re.search(r"\bmma\S*\.tf32|wgmma\S*\.tf32|tcgen05\.mma\S*tf32", ptx)),
        "spilled": sum(int(n) for n in re.findall(r"(\d+) bytes spill stores", said)),
    }


def _type(name: str, dtype: str) -> str:
    if name in INTEGERS:
        return "*i64"
    if name == "x_ptr":
        return f"*{dtype}"
    return "*fp32" if name.endswith("_ptr") else "fp32" if name in FLOATS else "i32"


def _assembled(ptx: str, capability: int) -> str:
    tool = TOOLS / ("ptxas-blackwell" if capability >= 100 else "ptxas")
    found = re.search(r"\.target (\w+)", ptx)
    if found is None:
        raise ValueError("the PTX names no target")
    with tempfile.NamedTemporaryFile("w", suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [str(tool), "-v", f"--gpu-name={found[1]}", "-o", "/dev/null", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stderr


if __name__ == "__main__":
    for kernel, given, dtype in launches():
        line = json.dumps(compiled(kernel, given, dtype, int(sys.argv[1])))
        sys.stdout.write(f"{line}\n")
