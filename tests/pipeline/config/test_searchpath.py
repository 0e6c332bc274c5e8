from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pipeline.config.searchpath import folder_configs, own_configs, package_configs
from pipeline.errors import UserError
from tests.pipeline.tiny import FILES, composed, write_files


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_files(tmp_path / "conf", FILES)


def test_own_configs_are_found_from_any_primary_config(folder: Path) -> None:
    assert (own_configs() / "config.yaml").is_file()
    cfg = composed(folder, "+scheme=w4a16")
    assert cfg.scheme.weights.group_size == 128


def test_folders_of_the_variable_are_looked_into_after_ours(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = write_files(tmp_path / "one", {"data/team.yaml": "kind: words\ncount: 11\n"})
    two = write_files(
        tmp_path / "two",
        {
            "data/team.yaml": "kind: words\ncount: 22\n",
            "data/other.yaml": "kind: words\ncount: 33\n",
        },
    )
    monkeypatch.setenv("PRESSWORK_CONF", f"{one}:{two}")
    assert folder_configs() == [one, two]
    assert composed(folder, "data=team").data.count == 11
    assert composed(folder, "data=other").data.count == 33


def test_a_folder_that_is_not_there_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRESSWORK_CONF", f"{tmp_path}:{tmp_path / 'missing'}")
    with pytest.raises(UserError, match=r"PRESSWORK_CONF names .*missing, which is no folder"):
        folder_configs()


def installed(site: Path, entry: str) -> Path:
    """A distribution as pip leaves it, with one entry point."""
    return write_files(
        site,
        {
            "team-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: team\nVersion: 1.0\n",
            "team-1.0.dist-info/entry_points.txt": f"[presswork.conf]\nteam = {entry}\n",
            "team_conf/__init__.py": "",
            "team_conf/data/packaged.yaml": "kind: words\ncount: 44\n",
        },
    )


def test_an_installed_package_brings_its_configs(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(installed(tmp_path / "site", "team_conf")))
    assert ("team", "team_conf") in package_configs()
    assert composed(folder, "data=packaged").data.count == 44
    sys.modules.pop("team_conf", None)


def test_a_declared_package_that_is_missing_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(installed(tmp_path / "site", "no_such_team.conf")))
    with pytest.raises(UserError, match=r"names the package no_such_team\.conf"):
        package_configs()
