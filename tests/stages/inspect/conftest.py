"""A tiny llama of two layers as a checkpoint of each kind that is read."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from stages.inspect.run import inspect
from tests.benchmarks.random_llama import TINY, write_model
from tests.stages.quantized.checkpoints import KINDS, quantize

Look = Callable[[Path], dict[str, Any]]


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama"), replace(TINY, layers=2))


@pytest.fixture(scope="session")
def kinds(tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path) -> Callable[[str], Path]:
    """The checkpoint of a kind, written once; not to be changed."""
    folder, made = tmp_path_factory.mktemp("kinds"), dict[str, Path]()

    def kind(name: str) -> Path:
        if name not in made:
            made[name] = folder / name
            quantize(tiny_llama, made[name], KINDS[name])
        return made[name]

    return kind


def look(path: Path) -> dict[str, Any]:
    """What is found in a checkpoint."""
    return inspect(path, lambda *_: None)
