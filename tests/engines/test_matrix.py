"""What the table of loaders says where a version of transformers is known not to load a scheme."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.engines import matrix


@pytest.mark.parametrize(
    ("known", "plain", "told"),
    [
        (False, "951.44", "951.44"),
        (False, "ValueError: no", "ValueError: no"),
        (True, "ValueError: no", "not as it is from 5.23 on, as expected; 950.12 with"),
        (True, "951.44", "951.44, though it should not load from 5.23 on"),
    ],
)
def test_a_known_limit_is_told_as_expected(
    known: bool, plain: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def answer(command: Sequence[str]) -> str:
        return "950.12" if command[-1] == "dequantize" else plain

    monkeypatch.setattr(matrix, "answer", answer)
    monkeypatch.setattr(matrix, "unread", lambda scheme: ["loading"] if known else [])
    found = matrix.in_transformers("w4a16_asym", Path("checkpoint"), Path("tokens"))
    assert found.startswith(told)
