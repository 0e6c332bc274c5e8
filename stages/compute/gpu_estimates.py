"""Figures behind a plan's estimates for a GPU: seconds of forwards, of statistics, of solving.

Measured on an NVIDIA H200 (torch 2.11, triton 3.6) on the widths of Llama-3.1-8B in bfloat16; other
cards will differ. They decide no result.

=========================  =======  =======  =========================================
solve [rows, in], int4     measured  formula  of it: factor; scales, codes and descent
=========================  =======  =======  =========================================
4096, 4096                  19.5 ms  18 ms    3; 16
6144, 4096                  24.1 ms  22 ms    3; 21
28672, 4096                 85.7 ms  73 ms    4; 82
4096, 14336                145.8 ms  170 ms   39; 107
Gram [32768, 4096]           0.9 ms  0.9 ms   products of bfloat16, upper blocks
Gram [8192, 14336]           2.9 ms  2.8 ms
=========================  =======  =======  =========================================
"""

from __future__ import annotations

from dataclasses import replace

from pipeline.machine.gpus import BESIDE_TENSORS, gpu_of
from pipeline.stage import Estimate
from stages.compute.estimates import FORWARD_FLOPS as CPU_FLOPS
from stages.compute.estimates import MODEL_PROCESS

FORWARD_FLOPS = 3.7e14
"""Of forward and backward passes in bfloat16: half of what a product alone reaches."""
FLOAT32_FLOPS = 3e13
"""Of products in float32. An assumption."""
GRAM_OPERATIONS = 6e14
"""columns^2 x rows a second of a Gram matrix: its upper half is computed."""
FACTOR_SECONDS = 3.2e-3 / 4096**2
"""Of a Cholesky factor and what goes with it, times columns^2."""
COLUMN_SECONDS = 1.3e-6
"""Of launching what is done for one column."""
SOLVE_SECONDS = 1.35e-13
"""Times rows x columns^2: nearest plane, products between blocks, descent."""
ROUND_SECONDS = 2.5e-10
"""Times elements: scales are searched and codes rounded."""
LAYER_SECONDS = 0.3
"""Of a layer beside arithmetic: read, move, pack, write and hash. An assumption."""
TOKEN_SECONDS = 0.025
"""Of generating one token, which launches many small kernels. An assumption."""
SOLVE_BYTES = 28
"""Times rows x columns: seven float32 arrays the size of the weights that are solved together."""
ROUND_BYTES = 16
"""Times rows x columns: the weights, their codes, and float32 in between."""
CUDA_PROCESS = 1_500_000_000
"""CUDA's libraries in the memory of the host. An assumption."""


def solve_seconds(rows: int, columns: int) -> float:
    """Seconds to choose the codes of weights [rows, columns] in the metric of their inputs."""
    factor = FACTOR_SECONDS * columns**2 + COLUMN_SECONDS * columns
    return factor + SOLVE_SECONDS * rows * columns**2


def gram_seconds(rows: int, columns: int) -> float:
    """Seconds to sum the Gram matrix of inputs [rows, columns] in half precision."""
    return rows * columns**2 / GRAM_OPERATIONS


def solve_memory(rows: int, columns: int) -> int:
    """Bytes of the GPU that solving takes: the weights' arrays, and three matrices [in, in]."""
    return SOLVE_BYTES * rows * columns + 12 * columns**2


def head_on_gpu(cost: Estimate) -> Estimate:
    """The cost of work on the lm_head, known for a CPU, on a GPU: its arrays lie there."""
    return replace(
        cost,
        memory=MODEL_PROCESS + CUDA_PROCESS,
        seconds=LAYER_SECONDS + cost.seconds * CPU_FLOPS / FORWARD_FLOPS,
        device_memory=max(0, cost.memory - MODEL_PROCESS),
    )


def smaller_batch(device: str, setting: str, batch: int, fixed: int, each: int) -> str:
    """The largest value of `setting` that fits where `fixed` + `batch` x `each` bytes do not.

    Empty where they do, where nothing does, and where the GPU is not known.
    """
    gpu = gpu_of(device)
    if gpu is None or fixed + batch * each + BESIDE_TENSORS <= gpu.total_bytes:
        return ""
    fitting = (gpu.total_bytes - BESIDE_TENSORS - fixed) // each
    return f"say {setting}={fitting}" if fitting >= 1 else ""
