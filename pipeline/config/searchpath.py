"""Where configs are looked for besides presswork's own: installed packages and PRESSWORK_CONF."""

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

GROUP = "presswork.conf"
VARIABLE = "PRESSWORK_CONF"


def own_configs() -> Path:
    """The folder of presswork's configs: `conf` of a checkout, or inside the installed package."""
    here = Path(pipeline.__file__).resolve().parent
    inside = here / "conf"
    return inside if inside.is_dir() else here.parent / "conf"


class TeamConfigs(SearchPathPlugin):
    """Adds presswork's own folder, then packages by entry point, then PRESSWORK_CONF.

    What comes first wins where two have a file of the same name.
    """

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        own = str(own_configs())
        if all(item.path.removeprefix("file://") != own for item in search_path.get_path()):
            search_path.append("presswork", f"file://{own}")
        for name, package in package_configs():
            search_path.append(name, f"pkg://{package}")
        for folder in folder_configs():
            search_path.append(VARIABLE, f"file://{folder}")


def package_configs() -> list[tuple[str, str]]:
    """(distribution, package) of every installed package that declares configs.

    Raises UserError for a package that is declared but not there.
    """
    found: list[tuple[str, str]] = []
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
        found.append((entry.dist.name if entry.dist else entry.name, entry.value))
    return found


def folder_configs() -> list[Path]:
    """The folders of PRESSWORK_CONF, absolute; raises UserError for one that is not there."""
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
    """Look into one more folder, as --config-dir makes Hydra do for the command itself."""
    before = os.environ.get(VARIABLE)
    if folder is not None:
        os.environ[VARIABLE] = os.pathsep.join(filter(None, (before, str(folder))))
    try:
        yield
    finally:
        if folder is not None and before is None:
            del os.environ[VARIABLE]
        elif before is not None:
            os.environ[VARIABLE] = before


def register() -> None:
    """Make Hydra ask TeamConfigs, and know what our configs compute, in this process."""
    register_resolvers()
    Plugins.instance().register(TeamConfigs)
