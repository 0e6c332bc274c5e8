"""Errors of config files: no plain YAML, or choices that are not there; each names its file."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path

import yaml
from hydra._internal.config_repository import ConfigRepository
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.default_element import ConfigDefault, GroupDefault
from hydra.core.object_type import ObjectType
from hydra.errors import HydraException, MissingConfigException
from hydra.plugins.config_source import ConfigResult
from omegaconf.errors import OmegaConfBaseException
from yaml import MarkedYAMLError, Node, SafeLoader, YAMLError
from yaml.constructor import ConstructorError

from pipeline.config.hydra_errors import missing
from pipeline.errors import UserError
from pipeline.plain_file import open_plain
from pipeline.report.units import nearby

_TAG = re.compile(r"for the tag '(?:tag:yaml\.org,2002:)?([^']+)'")
FAULTS = (YAMLError, ValueError, TypeError, LookupError, AttributeError, AssertionError)
"""What YAML, OmegaConf and Hydra raise for content that they do not expect."""
LONGEST = 1_000_000
"""Bytes of a config file."""
MOST_VALUES = 20_000
"""Values that a file with aliases stands for; each takes OmegaConf half a millisecond."""
_IN = re.compile(r"In '(?P<config>[^']+)': (?P<problem>.*)", re.DOTALL)
_TWICE = re.compile(r"Multiple values for (?P<group>\S+)\..*: (?P<option>.*)'")
_AGAIN = re.compile(r"(?P<group>\S+) appears more than once in the final defaults list")
_UNRESOLVED = re.compile(r"Error resolving interpolation '(?P<option>\$\{[^']*\})'")
_RAISED = re.compile(r"\w+ raised while composing config:\s*")
_KEY = re.compile(r"^\s*full_key: (?P<key>\S+)", re.MULTILINE)


class _Known:
    """Config files as they were parsed, by path and state; copies of a repository share them."""

    def __init__(self) -> None:
        self.files: dict[tuple[str, int, int], ConfigResult | None] = {}

    def __deepcopy__(self, memo: object) -> _Known:
        return self


class NamingRepository(ConfigRepository):
    """Hydra's repository of config files; errors of a file's content name the file."""

    def __init__(self, config_search_path: ConfigSearchPath) -> None:
        super().__init__(config_search_path)
        self._choices: dict[str, list[str]] = {}
        """Path of a loaded config -> what its `defaults` choose."""
        self._known = _Known()

    def load_config(self, config_path: str) -> ConfigResult | None:
        """The file of a config. Raises UserError for one that is no plain YAML mapping."""
        try:
            loaded = self._loaded(config_path)
        except (HydraException, UserError):
            raise
        except OmegaConfBaseException as error:
            raise _at_key(self._place(config_path), str(error)) from error
        except RecursionError as error:
            what = "is nested too deeply, or refers to itself"
            raise UserError(f"{self._place(config_path)} {what}") from error
        except FAULTS as error:
            raise _unreadable(self._place(config_path), error) from error
        if loaded is not None:
            self._choices[config_path] = list(_chosen(loaded))
        return loaded

    def _loaded(self, config_path: str) -> ConfigResult | None:
        """A copy of the file's config; it is parsed once for all compositions of a command."""
        path = self._path(config_path)
        if path is None or not path.is_file():
            return super().load_config(config_path)
        state = path.stat()
        key = (str(path), state.st_mtime_ns, state.st_size)
        if key not in self._known.files:
            self._check_size(config_path)
            self._known.files[key] = super().load_config(config_path)
        return copy.deepcopy(self._known.files[key])

    def _check_size(self, config_path: str) -> None:
        """Raise UserError for a file, or for what its aliases stand for, beyond what a config is.

        OmegaConf copies what an alias names: a few lines can stand for a billion values.
        """
        path = self._path(config_path)
        if path is None or not path.is_file():
            return
        with open_plain(path) as file:
            data = file.read(LONGEST + 1)
        if len(data) > LONGEST:
            raise UserError(f"{nearby(path)} has more than {LONGEST} bytes: no config is as large")
        if b"&" in data and b"*" in data and _values(yaml.compose(data, SafeLoader)) > MOST_VALUES:
            raise UserError(
                f"{nearby(path)}: its aliases (*name) stand for more than {MOST_VALUES} values",
                remedy="write out what is meant",
            )

    def located(self, error: HydraException) -> UserError | None:
        """The error with the file that it is about; None where no file is at fault."""
        text = str(error)
        if said := _IN.fullmatch(text):
            if not isinstance(error, MissingConfigException):
                return _at_key(self._place(said["config"]), said["problem"])
        what = remedy = option = ""
        if isinstance(error, MissingConfigException) and error.missing_cfg_file:
            told = missing(error)
            what, remedy = told.what, told.remedy
            option = str(error.missing_cfg_file).rpartition("/")[2]
        elif twice := _TWICE.match(text):
            group, option = twice["group"], twice["option"]
            what = f"{group} is chosen already, and {group}: {option} chooses again"
            remedy = f"write `- override /{group}: {option}`"
        elif again := _AGAIN.match(text):
            option = again["group"]
            what = f"{option} is chosen twice"
            remedy = f"write `- override /{option}: ...` to replace an earlier choice"
        elif unresolved := _UNRESOLVED.match(text):
            option = unresolved["option"]
            what = f"`defaults` has {option}, which is no group that is chosen"
            remedy = "write the option itself"
        place = self._choosing(option) if option else None
        return UserError(f"{place}: {what}", remedy=remedy) if place else None

    def _choosing(self, option: str) -> str | None:
        """The place of the last loaded file whose `defaults` choose an option."""
        found = [path for path, chosen in self._choices.items() if option in chosen]
        return self._place(found[-1]) if found else None

    def _path(self, config_path: str) -> Path | None:
        """The file of a config; None for one that is in a package."""
        source = self._find_object_source(config_path, ObjectType.CONFIG)
        if source is None or source.scheme() != "file":
            return None
        name = config_path if config_path.endswith(".yaml") else f"{config_path}.yaml"
        return Path(source.path) / name

    def _place(self, config_path: str) -> str:
        path = self._path(config_path)
        return config_path if path is None else nearby(path)


def _values(root: Node | None) -> int:
    """The number of values that a YAML document stands for, aliases written out.

    One that refers to itself is left to whoever builds it.
    """
    known: dict[int, int] = {}

    def count(node: Node) -> int:
        if id(node) not in known:
            known[id(node)] = 1
            parts = node.value if isinstance(node.value, list) else []
            pairs = (part if isinstance(part, tuple) else (part,) for part in parts)
            known[id(node)] = 1 + sum(count(each) for pair in pairs for each in pair)
        return known[id(node)]

    return 0 if root is None else count(root)


def _chosen(loaded: ConfigResult) -> Iterator[str]:
    """The names of groups and options in the defaults of a config."""
    for default in loaded.defaults_list or ():
        if isinstance(default, GroupDefault):
            options = default.value if isinstance(default.value, list) else [default.value]
            yield from (name.strip("/") for name in (default.group, *options) if name)
        elif isinstance(default, ConfigDefault) and default.path:
            yield default.path.rpartition("/")[2]


def _at_key(place: str, problem: str) -> UserError:
    """An error of OmegaConf or Hydra in one line, with the file and the key."""
    key = _KEY.search(problem)
    reason, _, rest = _RAISED.sub("", problem).strip().partition("\n")
    where = place if key is None else f"{place}: {key['key']}"
    help = rest.strip() if rest.strip().startswith("Did you mean") else "correct the file"
    return UserError(f"{where}: {reason}", remedy=help)


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
