"""A few rows of a token set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from pipeline.errors import UserError
from pipeline.stage import Task
from stages.tokens.excerpt import Excerpt, ExcerptConfig
from tests.stages.tokens.fakes import FakeArtifact


def excerpt(folder: Path, rows: int, sequences: int) -> tuple[np.ndarray, FakeArtifact]:
    """The numbers of the rows that are taken of `rows`, and the result."""
    tokens, draft = FakeArtifact(folder / "tokens", {"dataset": "d"}), FakeArtifact(folder / "out")
    for artifact in (tokens, draft):
        artifact.path.mkdir()
    ids = np.repeat(np.arange(rows, dtype=np.int32)[:, None], 4, axis=1)
    lengths = np.full(rows, 3, dtype=np.int32)
    save_file({"input_ids": ids, "lengths": lengths}, tokens.file("tokens.safetensors"))
    task = Task(
        node_name="excerpt",
        member=None,
        index=None,
        inputs={"tokens": tokens},
        outputs={"out": draft},
        scratch=folder / "scratch",
        progress=lambda fraction, text: None,
        warn=print,
        resource=lambda name, make: make(),
    )
    Excerpt(ExcerptConfig(sequences=sequences)).run(task)
    found = load_file(draft.file("tokens.safetensors"))
    assert found["input_ids"].dtype == np.int32 and len(found["lengths"]) == draft.meta["samples"]
    return found["input_ids"][:, 0], draft


@pytest.mark.parametrize(
    ("rows", "sequences", "expected"),
    [(10, 5, [0, 2, 4, 6, 8]), (7, 3, [0, 2, 4]), (3, 16, [0, 1, 2]), (5, 1, [0])],
)
def test_rows_are_spread_evenly(
    tmp_path: Path, rows: int, sequences: int, expected: list[int]
) -> None:
    found, draft = excerpt(tmp_path, rows, sequences)
    assert found.tolist() == expected
    assert draft.meta == {"dataset": "d", "samples": len(expected), "tokens": 3 * len(expected)}


def test_no_rows_are_no_excerpt() -> None:
    with pytest.raises(UserError, match="sequences is 0"):
        ExcerptConfig(sequences=0)
