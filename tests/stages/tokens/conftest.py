"""What the tests of tokens share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.stages.tokens.fakes import FakeArtifact, model_artifact


@pytest.fixture
def model(tmp_path: Path) -> FakeArtifact:
    return model_artifact(tmp_path / "load")
