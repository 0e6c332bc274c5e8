"""Config loader that checks every composition before Hydra acts on it, those of jobs included.

Hydra instantiates `hydra.callbacks`, configures logging and sets variables before the program's own
function sees a config. All of it composes through one object, which here checks what it composed.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra._internal.hydra
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from pipeline.config.config_files import NamingRepository
from pipeline.config.environment import references_shown
from pipeline.config.hydra_rules import Refused, logging_without_levels, refused
from pipeline.config.searchpath import folder_configs, own_configs, package_configs
from pipeline.errors import UserError
from pipeline.report.units import nearby

COMMAND_LINE = "the command line"


@dataclass(frozen=True, kw_only=True, slots=True)
class Origin:
    """A file or the command line, and whether it is the user's own or an installed package's."""

    place: str
    trusted: bool


class CheckedLoader(ConfigLoaderImpl):
    """Hydra's config loader; what it composes has passed `pipeline.config.hydra_rules`.

    Jobs of a sweep, on whatever machine, compose through it too: `load_sweep_config` calls
    `load_configuration`.
    """

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self.repository: NamingRepository = NamingRepository(config_search_path)
        self._read = self.repository
        """Hydra's copy of the repository for the composition at work: it has `hydra.searchpath`."""
        self._listing: tuple[tuple[str | None, tuple[str, ...]], CachingConfigRepository] | None
        self._listing = None

    def get_group_options(
        self,
        group_name: str,
        results_filter: ObjectType | None = ObjectType.CONFIG,
        config_name: str | None = None,
        overrides: list[str] | None = None,
    ) -> list[str]:
        """The options of a group, or its groups.

        Hydra copies its repository, with all that it holds, for every answer; `--help` and
        completion ask for a hundred. One copy answers all that concern the same command.
        """
        asked = (config_name, tuple(overrides or ()))
        if self._listing is None or self._listing[0] != asked:
            _, repository = self._parse_overrides_and_create_caching_repo(
                config_name, list(overrides or ())
            )
            self._listing = asked, repository
        return list(self._listing[1].get_group_options(group_name, results_filter))

    def load_configuration(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool = True,
        validate_sweep_overrides: bool = True,
    ) -> DictConfig:
        """The composed config. Raises UserError where it would make Hydra run code."""
        with references_shown(False):  # choices may come from the environment
            cfg = self._composed(
                config_name, overrides, run_mode, from_shell, validate_sweep_overrides
            )
            for problem in refused(cfg, self.shipped_logging):
                if problem.replaced and _given(problem.path, overrides):
                    continue
                origin = self.origin(problem.path, config_name, overrides, run_mode)
                if problem.always or not origin.trusted:
                    raise _error(problem, origin)
        return cfg

    def _composed(
        self,
        config_name: str | None,
        overrides: list[str],
        run_mode: RunMode,
        from_shell: bool,
        validate: bool,
    ) -> DictConfig:
        try:
            return super().load_configuration(
                config_name, overrides, run_mode, from_shell, validate
            )
        except HydraException as error:
            if (located := self._read.located(error)) is None:
                raise
            raise located from error
        except RecursionError as error:
            raise UserError(
                "the defaults of the configs refer to each other in a circle, or are nested too "
                "deeply",
                remedy="look at `defaults` of the chosen options",
            ) from error
        except AssertionError as error:  # Hydra's own message of it fails
            raise UserError(
                "an entry of `defaults` in a chosen config gives several options to a key that "
                "takes one",
                remedy="look for a misspelt key: `- override /modifier: [smoothquant, gptq]` "
                "replaces options that were chosen before it",
            ) from error
        except KeyError as error:
            raise UserError(
                f"hydra.job.env_copy names {error}, which the environment does not have",
                remedy="set the variable, or leave it out",
            ) from error

    def _parse_overrides_and_create_caching_repo(
        self, config_name: str | None, overrides: list[str]
    ) -> tuple[list[Override], CachingConfigRepository]:
        parsed, repository = super()._parse_overrides_and_create_caching_repo(
            config_name, overrides
        )
        if isinstance(repository.delegate, NamingRepository):
            self._read = repository.delegate
        return parsed, repository

    def shipped_logging(self, group: str) -> list[Any]:
        """The options of `hydra/job_logging` or `hydra/hydra_logging` that are installed."""
        found: list[Any] = []
        for source in self.get_sources():
            if _installed(f"{source.scheme()}://{source.path}") and source.is_group(group):
                for name in source.list(group, ObjectType.CONFIG):
                    config = source.load_config(f"{group}/{name}").config
                    found.append(logging_without_levels(OmegaConf.to_container(config)))
        return found

    def origin(
        self, path: Sequence[str], config_name: str | None, overrides: list[str], mode: RunMode
    ) -> Origin:
        """The last place that sets a key; where several do, one that is not trusted if there is."""
        found = list(self._origins(tuple(path), config_name, overrides, mode))
        distrusted = [origin for origin in found if not origin.trusted]
        if distrusted or found:
            return (distrusted or found)[-1]
        return Origin(place=COMMAND_LINE, trusted=True)

    def _origins(
        self, key: tuple[str, ...], config_name: str | None, overrides: list[str], mode: RunMode
    ) -> Iterator[Origin]:
        _, repository = self._parse_overrides_and_create_caching_repo(config_name, overrides)
        for default in self.compute_defaults_list(config_name, overrides, mode).defaults:
            loaded = repository.load_config(str(default.config_path))
            if loaded is None or not OmegaConf.is_dict(loaded.config):
                continue
            content: Any = OmegaConf.to_container(loaded.config, resolve=False)
            for step in reversed([p for p in (default.package or "").split(".") if p]):
                content = content if step == "_global_" else {step: content}
            if not _sets(content, key):
                continue
            path = f"{loaded.path.removeprefix('file://')}/{default.config_path}.yaml"
            on_disk = loaded.path.startswith("file://")
            yield Origin(
                place=nearby(Path(path)) if on_disk else path,
                trusted=_installed(loaded.path) or _own(loaded.path),
            )
        for override in OverridesParser.create().parse_overrides(overrides):
            words = tuple(override.key_or_group.split("."))
            if words[: len(key)] == key or (words and words == key[: len(words)]):
                yield Origin(place=COMMAND_LINE, trusted=True)


@contextmanager
def checked() -> Iterator[None]:
    """Let Hydra compose by CheckedLoader: it offers no argument for it."""
    module = vars(hydra._internal.hydra)
    before = module["ConfigLoaderImpl"]
    module["ConfigLoaderImpl"] = CheckedLoader
    try:
        yield
    finally:
        module["ConfigLoaderImpl"] = before


def _given(path: Sequence[str], overrides: list[str]) -> bool:
    """Whether the command line itself gives a value to a key."""
    key = ".".join(path)
    parsed = OverridesParser.create().parse_overrides(overrides)
    return any(o.key_or_group == key and not o.is_delete() for o in parsed)


def _error(problem: Refused, origin: Origin) -> UserError:
    return UserError(
        f"{origin.place}: {'.'.join(problem.path)} {problem.what}", remedy=problem.remedy
    )


def _installed(location: str) -> bool:
    """Whether configs come from Hydra, an installed plugin or package, or presswork.

    `hydra.searchpath` can name any package; only those that are declared by entry points count.
    """
    scheme, _, path = location.partition("://")
    if scheme == "pkg":
        declared = {package for _, package in package_configs()}
        return path.partition(".")[0] in ("hydra", "hydra_plugins") or path in declared
    return scheme == "structured" or (scheme == "file" and Path(path).resolve() == own_configs())


def _own(location: str) -> bool:
    """Whether configs come from a folder that the user named in PRESSWORK_CONF."""
    scheme, _, path = location.partition("://")
    return scheme == "file" and Path(path).resolve() in folder_configs()


def _sets(content: Any, key: Sequence[str]) -> bool:
    """Whether a file sets `key` to more than nothing, or a section of it to a reference."""
    for step in key:
        if isinstance(content, str):
            return True
        if not isinstance(content, dict):
            return False
        named = {str(name): name for name in content}
        if step not in named:
            return False
        content = content[named[step]]
    return content not in (None, {}, [])
