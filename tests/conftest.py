"""Tiny models shared by the tests of whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.memory import text_of_bytes
from tests.benchmarks.random_llama import TINY, write_model


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama"), TINY)


@pytest.fixture(scope="session")
def some_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_of_bytes(tmp_path_factory.mktemp("text") / "text.txt", 20_000)
