"""`mode=doctor`: versions, devices, memory, disk, store and hub of this machine."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from pipeline.config.root import Config
from pipeline.errors import UserError
from pipeline.machine.devices import usable, usable_cpus
from pipeline.machine.gpus import driver_version, gpus, torch_cuda
from pipeline.masking import masked
from pipeline.report.units import size
from pipeline.store import Store

PACKAGES = (
    "presswork",
    "torch",
    "transformers",
    "compressed-tensors",
    "safetensors",
    "datasets",
    "huggingface_hub",
    "hydra-core",
    "omegaconf",
    "numba",
    "numpy",
)
ABSENT = "not installed"
HUB_SECONDS = 3.0


def doctor(config: Config, run_dir: Path) -> int:
    """Print versions, devices, memory, disk, store and hub; the exit code is always 0."""
    del run_dir
    table = Table("what", "found", box=None, header_style="bold")
    found = [*_versions(), *_machine(config), *_cluster(config), *_places(config)]
    for name, value in found:
        table.add_row(name, masked(value))
    console = Console(highlight=False)
    console.print(table)
    console.print(f"\n{masked(verdict(dict(found), config.device))}", markup=False)
    return 0


def verdict(found: Mapping[str, str], device: str) -> str:
    """One sentence on whether presswork can run here, from the rows of the table, and what lacks.

    `device` is the one that the config chose.
    """
    lacking = [f"{name} is not installed" for name in PACKAGES if found.get(name) == ABSENT]
    store = found.get("store", "")
    if ", writable, " not in store:
        lacking.append(f"the store cannot be written ({store.partition(chr(10))[0]})")
    if lacking:
        return f"Not ready: {'; '.join(lacking)}."
    notes = []
    unused = next((v for n, v in found.items() if n == "torch's CUDA" and v.startswith("none")), "")
    if unused:
        notes.append("there is a GPU, but this torch is built for CPUs and will not use it")
    if "cannot be reached" in found.get("hub", ""):
        notes.append("the hub is not reached, so models and datasets have to be local")
    told = f" But {'; '.join(notes)}." if notes else ""
    return f"Ready: runs compute on {device}.{told}"


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", f"{platform.python_version()} ({sys.executable})"
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, ABSENT


def _gpus() -> Iterator[tuple[str, str]]:
    for gpu in gpus():
        yield f"cuda:{gpu.index}", f"{gpu.name}, {gpu.architecture}, {size(gpu.total_bytes)}"
    if gpus():
        yield "NVIDIA driver", driver_version()
        built = torch_cuda()
        yield "torch's CUDA", built or "none: this torch was built for CPUs and uses no GPU"
        yield "triton", _triton()
    if not usable():
        yield "cuda", "none that torch can use"


def _triton() -> str:
    try:
        return version("triton")
    except PackageNotFoundError:
        return "not installed: the kernels of GPUs are replaced by slower operations of torch"


def _machine(config: Config) -> Iterator[tuple[str, str]]:
    yield "system", platform.platform()
    yield "CPUs", f"{usable_cpus()} usable of {os.cpu_count()}"
    memory = psutil.virtual_memory()
    yield "memory", f"{size(memory.available)} available of {size(memory.total)}"
    yield from _gpus()
    yield "device", f"{config.device}, {config.numerics.threads} threads an operation"


def _cluster(config: Config) -> Iterator[tuple[str, str]]:
    """Who builds nodes besides this process."""
    if config.runner.devices:
        yield "workers", f"a process for each of {', '.join(config.runner.devices)}"
    if config.runner.kind == "ray":
        from pipeline.runner.workers.ray_cluster import described

        yield from described(config.runner.address)


def _places(config: Config) -> Iterator[tuple[str, str]]:
    yield "folder", str(Path.cwd())
    try:
        store = Store(config.store)
    except UserError as error:
        yield "store", str(error)
    else:
        use = "writable" if store.writable else "read-only"
        yield "store", f"{store.root}, {use}, {size(store.free_bytes())} free"
    yield "hub", _hub(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))


def _hub(endpoint: str) -> str:
    """Whether the hub answers within a few seconds."""
    try:
        answer = httpx.head(endpoint, timeout=HUB_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        return f"{endpoint} cannot be reached ({error}); local models and datasets work"
    return (
        f"{endpoint} answers" if answer.status_code < 400 else f"{answer.status_code}: {endpoint}"
    )
