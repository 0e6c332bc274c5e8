"""Hydra search path for configs: presswork's own, installed packages, PRESSWORK_CONF."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin

import pipeline
from pipeline.config.resolvers import register_resolvers
from pipeline.errors import UserError
from pipeline.machine.variables import variables

GROUP = "presswork.conf"
VARIABLE = "PRESSWORK_CONF"


def own_configs() -> Path:
    """The folder of presswork's configs: `conf` of a checkout, or inside the installed package."""
    here = Path(pipeline.__file__).resolve().parent
    inside = here / "conf"
    return inside if inside.is_dir() else here.parent / "conf"


class TeamConfigs(SearchPathPlugin):
    """Search path plugin: presswork's own folder, packages by entry point, PRESSWORK_CONF.

    The first wins where several have a file of the same name.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        shipped = str(own_configs())
        if all(item.path.removeprefix("file://") != shipped for item in search_path.get_path()):
            search_path.append("presswork", f"file://{shipped}")
        for name, package in package_configs():
            search_path.append(name, f"pkg://{package}")
        for folder in folder_configs():
            search_path.append(VARIABLE, f"file://{folder}")


def package_configs() -> list[tuple[str, str]]:
    """(distribution, package) of every installed package that declares configs.

    Raises UserError for a package that is declared but not installed.
    """
    packages: list[tuple[str, str]] = []
    for entry in sorted(entry_points(group=GROUP), key=lambda entry: entry.name):
        try:
            spec = find_spec(entry.value)
        except ImportError:
            spec = None
        if spec is None:
            raise UserError(
                f"the entry point {entry.name!r} of {GROUP} names the package {entry.value}, "
                "which is not installed",
                remedy="ship it in the wheel, with an __init__.py beside the YAML files",
            )
        packages.append((entry.dist.name if entry.dist else entry.name, entry.value))
    return packages


def folder_configs() -> list[Path]:
    """The folders of PRESSWORK_CONF, absolute; raises UserError for one that does not exist."""
    folders: list[Path] = []
    for part in os.environ.get(VARIABLE, "").split(os.pathsep):
        if not part:
            continue
        folder = Path(part).expanduser().resolve()
        if not folder.is_dir():
            raise UserError(
                f"{VARIABLE} names {part}, which is no folder",
                remedy=f"correct the variable: folders with {os.pathsep!r} between them",
            )
        folders.append(folder)
    return folders


@contextmanager
def including(folder: Path | None) -> Iterator[None]:
    """Add one more folder to the search path, as Hydra does for --config-dir."""
    if folder is None:
        yield
        return
    with variables(
        {VARIABLE: os.pathsep.join(filter(None, (os.environ.get(VARIABLE), str(folder))))}
    ):
        yield


def register() -> None:
    """Register TeamConfigs and the resolvers with Hydra, in this process."""
    register_resolvers()
    Plugins.instance().register(TeamConfigs)
