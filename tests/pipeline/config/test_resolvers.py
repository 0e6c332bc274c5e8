"""Help texts that every command composes: many groups of one's own cost little."""

from __future__ import annotations

from pathlib import Path

import hydra
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from pipeline.config.primary import rules
from pipeline.config.resolvers import MOST_GROUPS, listed, others


def test_many_groups_are_not_all_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(MOST_GROUPS + 50):
        (tmp_path / f"group{number:03}").mkdir()
    (tmp_path / "group000" / "one.yaml").touch()
    (tmp_path / f"group{MOST_GROUPS}" / "late.yaml").touch()
    copies = 0

    def counted(*args: object) -> None:
        nonlocal copies
        copies += 1

    monkeypatch.setattr(ConfigLoaderImpl, "get_group_options", counted)
    with hydra.initialize_config_dir(str(tmp_path), **rules()):
        lines = others().splitlines()
        late = listed(f"group{MOST_GROUPS}")
    assert any(line.split() == ["group000"] for line in lines)
    text = " ".join(lines)
    assert "one" in text and "late" not in text
    assert lines[-1].startswith("  and ") and lines[-1].endswith(" more")
    assert late == ["late"]
    assert copies == 0
