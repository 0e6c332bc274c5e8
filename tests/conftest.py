"""Tiny models shared by the tests of whole runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import settings

from tests.benchmarks.memory import text_of_bytes
from tests.benchmarks.random_llama import TINY, write_model

# The default suite tries the same cases each time: a failure is the change's, not the day's.
settings.register_profile("steady", derandomize=True, database=None)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def tiny_llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("llama"), TINY)


@pytest.fixture(scope="session")
def some_text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_of_bytes(tmp_path_factory.mktemp("text") / "text.txt", 20_000)


@pytest.fixture(scope="session")
def tiny_checkpoint(
    tmp_path_factory: pytest.TempPathFactory, tiny_llama: Path, some_text: Path
) -> Path:
    """The checkpoint of a run as it is published: never to be changed, only copied."""
    from tests.jobs import Job

    folder = tmp_path_factory.mktemp("checkpoint")
    job = Job(folder=folder, model=tiny_llama, text=some_text)
    job.run("made", "scheme=w8a16", "modifier=rtn", "verify.loader=none")
    return folder / "made" / "checkpoint"
