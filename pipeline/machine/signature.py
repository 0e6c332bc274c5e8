"""Signature of a process: what must be equal on two machines for their results to be equal.

Versions of code and libraries, the processor or GPU, and what the libraries of linear algebra were
built with. Read from files; no library is imported for it.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from pipeline.machine.gpus import gpu_of
from pipeline.machine.processor import overruled_on_gpus, processor

BUILDS = ("torch/version.py", "numpy/__config__.py", "scipy/__config__.py")
"""Files that tell how a library was built: with which BLAS, for which CUDA."""

LIBRARIES = ("torch", "numpy", "scipy", "numba", "safetensors")
"""Distributions that any stage may compute with."""


def signature(packages: Iterable[str], libraries: Iterable[str], device: str) -> dict[str, str]:
    """By name: the code of `packages`, versions of `libraries`, how they were built, the device."""
    found = {"Python": platform.python_version(), "processor": processor()}
    found |= {f"code of {name}": code_digest(name) for name in sorted({*packages})}
    found |= {name: _version(name) for name in sorted({*libraries, *LIBRARIES})}
    found |= {name: _text_digest(name) for name in BUILDS}
    if device != "cpu":
        gpu = gpu_of(device)
        found["GPU"] = f"{gpu.name}, {gpu.architecture}" if gpu else "none"
        found["variables of GPU libraries"] = " ".join(overruled_on_gpus())
    return found


def differences(here: Mapping[str, str], there: Mapping[str, str]) -> list[str]:
    """In words, what of the signature of another process is not as it is here."""
    names = [name for name in {**here, **there} if here.get(name) != there.get(name)]
    return [_differs(name, here.get(name, "none"), there.get(name, "none")) for name in names]


def code_digest(package: str) -> str:
    """The sha256 of a package's Python files and their names; empty where it is not found."""
    spec = find_spec(package)
    summed = hashlib.sha256()
    for folder in map(Path, (spec and spec.submodule_search_locations) or ()):
        for path in sorted(folder.rglob("*.py")):
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            summed.update(f"{path.relative_to(folder)} {content}\n".encode())
    return summed.hexdigest()


def _differs(name: str, here: str, there: str) -> str:
    if len(here) == len(there) == 64 or name == "processor":  # digests and lists say little
        return f"{name} differs" if name != "processor" else _processors(here, there)
    return f"{name} is {there or 'none'}, not {here or 'none'}"


def _processors(here: str, there: str) -> str:
    """The words that two processors do not share."""
    ours, theirs = here.split(" "), there.split(" ")
    lacks = " ".join(word for word in ours if word not in theirs) or "nothing"
    more = " ".join(word for word in theirs if word not in ours) or "nothing"
    return f"processor lacks {lacks} and has {more} more"


def _version(distribution: str) -> str:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def _text_digest(name: str) -> str:
    package, _, file = name.partition("/")
    spec = find_spec(package)
    for folder in (spec and spec.submodule_search_locations) or ():
        path = Path(folder, file)
        if path.is_file():
            return hashlib.sha256(path.read_bytes()).hexdigest()
    return ""
