"""`mode=doctor`: versions, devices, memory, disk, store and hub of this machine."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import httpx
import psutil
from rich.console import Console
from rich.table import Table

from pipeline.config.root import Config
from pipeline.errors import UserError
from pipeline.machine import usable_cpus
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
HUB_SECONDS = 3.0


def doctor(config: Config, run_dir: Path) -> int:
    """Print versions, devices, memory, disk, store and hub; the exit code is always 0."""
    del run_dir
    table = Table("what", "found", box=None, header_style="bold")
    for name, value in (*_versions(), *_machine(config), *_places(config)):
        table.add_row(name, value)
    Console(highlight=False).print(table)
    return 0


def _versions() -> Iterator[tuple[str, str]]:
    yield "python", f"{platform.python_version()} ({sys.executable})"
    for name in PACKAGES:
        try:
            yield name, version(name)
        except PackageNotFoundError:
            yield name, "not installed"


def _machine(config: Config) -> Iterator[tuple[str, str]]:
    import torch

    yield "system", platform.platform()
    yield "CPUs", f"{usable_cpus()} usable of {os.cpu_count()}"
    memory = psutil.virtual_memory()
    yield "memory", f"{size(memory.available)} available of {size(memory.total)}"
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        yield f"cuda:{index}", f"{device.name}, {size(device.total_memory)}"
    if not torch.cuda.is_available():
        yield "cuda", "none that torch can use"
    yield "device", f"{config.device}, {config.numerics.threads} threads an operation"


def _places(config: Config) -> Iterator[tuple[str, str]]:
    yield "folder", str(Path.cwd())
    try:
        store = Store(config.store)
    except UserError as error:
        yield "store", str(error)
    else:
        yield "store", f"{store.root}, writable, {size(store.free_bytes())} free"
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
