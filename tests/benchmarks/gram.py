"""Gram matrices of bfloat16 inputs on a CPU: time and error of every way that torch has.

`python -m tests.benchmarks.gram [--columns N] [--tokens N]` prints the CPU's units for bfloat16 and
a line for each way: CPU seconds on one thread, the largest error against float64 relative to the
diagonal, and whether the matrix has a Cholesky factor once it is damped as GPTQ damps it. The last
line says whether torch's switch for bfloat16 products, which is of the process, reaches a product
in another thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from stages.calibrate.statistics.gram import Gram

UNITS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
CHUNKS = (64, 1024)
"""Rows whose products are summed in float32 with those of others."""
DAMPENING = 0.01
"""Of the mean diagonal: the default of modifier gptq."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Way:
    """How one way did; `problem` where it cannot be gone here."""

    name: str
    seconds: float = 0.0
    error: float = 0.0
    definite: bool = False
    problem: str = ""


def cpu_units(info: str) -> tuple[str, ...]:
    """Those of `UNITS` that the text of /proc/cpuinfo names."""
    flags = next((line for line in info.splitlines() if line.startswith("flags")), "").split()
    return tuple(unit for unit in UNITS if unit in flags)


def inputs(tokens: int, columns: int) -> Tensor:
    """Inputs with a mean and a falling spectrum, bfloat16 [tokens, columns]."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(tokens, columns, generator=generator) / torch.arange(1.0, columns + 1)
    mix = torch.randn(columns, columns, generator=generator)
    return (x @ mix + 0.3).bfloat16()


def in_float32(x: Tensor) -> Tensor:
    """As calibration does it."""
    return Gram.finish(Gram.update(Gram.init(x.shape[1], "cpu"), x.float()))


def in_chunks(x: Tensor, rows: int) -> Tensor:
    """Products of bfloat16, which torch rounds to bfloat16, summed in float32."""
    state = torch.zeros(x.shape[1], x.shape[1])
    for part in x.split(rows):
        state += part.T @ part
    return state


def with_float32_sums(x: Tensor) -> Tensor:
    """As a GPU does it."""
    return torch.mm(x.T, x, out_dtype=torch.float32)


@contextmanager
def switched() -> Iterator[None]:
    """torch's switch for float32 products in bfloat16, of the whole process."""
    switch = torch.backends.mkldnn.matmul
    before = switch.fp32_precision
    switch.fp32_precision = "bf16"
    try:
        yield
    finally:
        switch.fp32_precision = before


def by_switch(x: Tensor) -> Tensor:
    """Float32 products of what bfloat16 holds, with the switch on."""
    with switched():
        return in_float32(x)


def ways() -> dict[str, Callable[[Tensor], Tensor]]:
    return {
        "float32, as calibration does it": in_float32,
        "bfloat16 whole": lambda x: (x.T @ x).float(),
        **{f"bfloat16, chunks of {rows} rows": partial(in_chunks, rows=rows) for rows in CHUNKS},
        "bfloat16, out_dtype=float32": with_float32_sums,
        "float32 with torch's switch on bfloat16": by_switch,
    }


def measure(name: str, way: Callable[[Tensor], Tensor], x: Tensor, turns: int) -> Way:
    exact = x.double().T @ x.double()
    size = exact.diagonal().sqrt()
    seconds = []
    for _ in range(turns):
        start = time.process_time()
        try:
            found = way(x)
        except NotImplementedError:
            return Way(name=name, problem="torch has none on a CPU")
        seconds.append(time.process_time() - start)
    damped = found + DAMPENING * found.diagonal().mean() * torch.eye(len(found))
    return Way(
        name=name,
        seconds=min(seconds),
        error=float(((found - exact) / (size[:, None] * size)).abs().max()),
        definite=int(torch.linalg.cholesky_ex(damped).info) == 0,
    )


def switch_reaches_others(x: Tensor) -> bool:
    """Whether a float32 product in a thread that was never asked gets other bits."""
    other = torch.randn(x.shape, generator=torch.Generator().manual_seed(1))
    with ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        before = pool.submit(lambda: other.T @ other).result()
        with switched():
            during = pool.submit(lambda: other.T @ other).result()
    return not torch.equal(before, during)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--columns", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    found = Path("/proc/cpuinfo")
    units = cpu_units(found.read_text(encoding="utf-8")) if found.exists() else ()
    sys.stdout.write(f"this CPU has: {', '.join(units) or 'none of ' + ', '.join(UNITS)}\n")
    x = inputs(given.tokens, given.columns)
    for name, way in ways().items():
        told = measure(name, way, x, given.turns)
        definite = "yes" if told.definite else "no"
        line = told.problem or f"{told.seconds:8.3f} s {told.error:10.1e}  definite: {definite}"
        sys.stdout.write(f"{name:42}{line}\n")
    reaches = "reaches" if switch_reaches_others(x) else "does not reach"
    sys.stdout.write(f"the switch {reaches} products in other threads\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
