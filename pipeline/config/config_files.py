"""Config files that are no plain YAML: one error, with the file, the line and what is allowed."""

from __future__ import annotations

import re
from pathlib import Path

from hydra._internal.config_repository import ConfigRepository
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException
from hydra.plugins.config_source import ConfigResult
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError
from yaml.constructor import ConstructorError

from pipeline.errors import UserError
from pipeline.report.units import nearby

_TAG = re.compile(r"for the tag '(?:tag:yaml\.org,2002:)?([^']+)'")
FAULTS = (YAMLError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""What YAML, OmegaConf and Hydra raise for content that they do not expect."""


class NamingRepository(ConfigRepository):
    """Hydra's repository of config files; errors of a file's content name the file."""

    def load_config(self, config_path: str) -> ConfigResult | None:
        """The file of a config. Raises UserError for one that is no plain YAML mapping."""
        try:
            return super().load_config(config_path)
        except (HydraException, OmegaConfBaseException, UserError):
            raise
        except RecursionError as error:
            what = "is nested too deeply, or refers to itself"
            raise UserError(f"{self._place(config_path)} {what}") from error
        except FAULTS as error:
            raise _unreadable(self._place(config_path), error) from error

    def _place(self, config_path: str) -> str:
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.scheme() != "file":
            return config_path
        name = config_path if config_path.endswith(".yaml") else f"{config_path}.yaml"
        return nearby(Path(source.path) / name)


def _unreadable(place: str, error: Exception) -> UserError:
    if isinstance(error, MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = place if mark is None else f"{place}:{mark.line + 1}:{mark.column + 1}"
        if isinstance(error, ConstructorError) and (tag := _TAG.search(str(error.problem))):
            return UserError(
                f"{where}: the tag {tag[1]} is not allowed",
                remedy="configs hold plain values: texts, numbers, lists and mappings",
            )
        reason = " ".join(filter(None, (error.context, error.problem)))
        return UserError(f"{where}: this is no YAML: {reason}", remedy="correct the file")
    reason = str(error).strip().partition("\n")[0] or type(error).__name__
    return UserError(f"{place} is no config: {reason}", remedy="correct the file")
