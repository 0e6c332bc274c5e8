"""Readable messages, with a remedy, for errors of Hydra and OmegaConf."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import cast

from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.searchpath import own_configs
from pipeline.errors import ManyErrors, UserError
from pipeline.registry import choices, nearest

Compose = Callable[[Sequence[str]], DictConfig]
"""Composes the primary config with overrides; raises what Hydra raises."""

EXTRAS = {
    "hydra/launcher=joblib": "joblib",
    "hydra/launcher=submitit_slurm": "slurm",
    "hydra/launcher=ray": "ray",
    "hydra/sweeper=optuna": "optuna",
}
"""Options that come with an extra of this distribution."""

_UNKNOWN_KEY = re.compile(r"^Could not (?:override|delete from config\.) ?'(?P<key>[^']+)'")
_NOT_CHOSEN = re.compile(
    r"^Could not override '(?P<group>[^']+)'\. ?\s*No match in the defaults list"
)
_THERE_ALREADY = re.compile(r"^Could not append to config\. An item is already at '(?P<key>[^']+)'")
_NAME = re.compile(r"\w+")
_SEVERAL = re.compile(r"^Ambiguous value for argument '(?P<word>.*)'")
_NO_FOLDER = re.compile(r"^Additional config directory '(?P<folder>.*)' not found")
_OVERRIDE = re.compile(r"^[+~]*(?P<key>[^=]*)")


def explain(error: Exception, overrides: Sequence[str], compose: Compose) -> UserError:
    """The message for an error of composition.

    `overrides` are those of the command line; `compose` serves to find the existing keys.
    """
    if isinstance(error, OverrideParseException):
        return _unreadable(error.override, _first_line(error.message))
    if match := _SEVERAL.match(str(error)):
        return UserError(
            f"{match['word']} has several values for one run",
            remedy="add -m for a job with each of them; a list is written KEY=[a,b], a text with "
            "commas 'KEY=\"a,b\"'",
        )
    if match := _NO_FOLDER.match(str(error)):
        return UserError(
            f"--config-dir {match['folder']}: there is no such folder",
            remedy="give the folder that holds the groups (scheme/, model/, ...) or FILE.yaml",
        )
    if isinstance(error, MissingConfigException) and error.missing_cfg_file:
        return missing(error)
    if match := _NOT_CHOSEN.match(str(error)):
        named = [given for given in overrides if _key(given) == match["group"]]
        given = named[0] if named else f"{match['group']}=OPTION"
        return UserError(
            f"{given}: nothing of the group {match['group']} is chosen that this could replace",
            remedy=f"add it: +{given}",
        )
    if match := _THERE_ALREADY.match(str(error)):
        named = [given.lstrip("+") for given in overrides if _key(given) == match["key"]]
        return UserError(
            f"{match['key']} is in the config already, so it is set, not added",
            remedy=f"leave out the +: {', '.join(named) or match['key']}",
        )
    if match := _UNKNOWN_KEY.match(str(error)):
        return _unknown_keys(match["key"], overrides, compose)
    cause = error.__cause__
    message = str(error) if str(error) else str(cause)
    if isinstance(cause, OmegaConfBaseException) and str(error):
        message = f"{_first_line(message)}: {_first_line(str(cause))}"
    elif isinstance(error, OmegaConfBaseException) and error.full_key:
        message = f"{error.full_key}: {_first_line(message)}"
    first, _, rest = message.strip().partition("\n")
    return UserError(first, remedy=rest.strip())


def _unreadable(word: str, reason: str) -> UserError:
    """The error for an override that is not in Hydra's grammar, without the parser's own words."""
    key, equals, value = word.partition("=")
    if not equals and not word.startswith("~"):
        return UserError(f"{word!r} says no value", remedy=f"write {word}=VALUE")
    for opening, closing in ("[]", "{}", "()"):
        if value.count(opening) != value.count(closing):
            lacks = closing if value.count(opening) > value.count(closing) else opening
            return UserError(
                f"{word!r} cannot be read: a {lacks!r} is missing",
                remedy=f"write {key}={opening}...{closing}",
            )
    if value.endswith(","):
        return UserError(
            f"{word!r} cannot be read: it ends with a comma",
            remedy=f"leave it out, or write a list: {key}=[{value.rstrip(',')}]",
        )
    return UserError(
        f"{word!r} cannot be read: {reason.partition(' expecting {')[0]}",
        remedy="write KEY=VALUE; quote special characters for the shell and for Hydra: "
        "'key=\"a, b\"'",
    )


def missing(error: MissingConfigException) -> UserError:
    """The message for a missing config file: a group's option, or the primary config."""
    group, _, option = str(error.missing_cfg_file).rpartition("/")
    options = list(error.options or ())
    if not group:
        return UserError(
            f"there is no config {option!r}",
            remedy="look at --config-name and --config-dir; `--info searchpath` lists the folders",
        )
    known = choices(option, options) if options else "`--help` lists the groups and their options"
    if "/" in group:  # model=org/name: Hydra takes it for an option in a group within the group
        outer, _, inner = group.partition("/")
        group, option = outer, f"{inner}/{option}"
        if "hub" in options:
            known = f"for one of the hub: {outer}=hub {outer}.id={option}; {known}"
    if extra := EXTRAS.get(f"{group}={option}"):
        known = f"pip install 'presswork[{extra}]' brings it"
    return UserError(f"{group}={option}: there is no such option", remedy=known)


def _unknown_keys(first: str, overrides: Sequence[str], compose: Compose) -> UserError:
    """Errors for all overrides with unknown keys, found by leaving them out one by one."""
    unknown, kept = [first], [given for given in overrides if _key(given) != first]
    cfg: DictConfig | None = None
    while cfg is None:
        try:
            cfg = compose(kept)
        except UserError as refused:
            return refused
        except (HydraException, OmegaConfBaseException) as error:
            match = _UNKNOWN_KEY.match(str(error))
            if match and any(_key(given) == match["key"] for given in kept):
                unknown.append(match["key"])
                kept = [given for given in kept if _key(given) != match["key"]]
            elif kept:
                kept = []
            else:
                break
    errors = [_unknown_key(key, cfg) for key in unknown]
    return errors[0] if len(errors) == 1 else ManyErrors(errors)


def _unknown_key(key: str, cfg: DictConfig | None) -> UserError:
    steps = key.split(".")
    node: object = cfg
    depth = 0
    while depth < len(steps) and OmegaConf.is_dict(node) and steps[depth] in cast(DictConfig, node):
        node = cast(DictConfig, node)._get_node(steps[depth])
        depth += 1
    names = [str(name) for name in cast(DictConfig, node)] if OmegaConf.is_dict(node) else []
    where = ".".join(steps[:depth])
    wrong = steps[min(depth, len(steps) - 1)]
    close = nearest(wrong, names)
    if names:
        listed = f"the keys of {where} are" if where else "the top-level keys are"
        listed = f"{listed} {', '.join(names)}"
    else:
        listed = f"{where} has no keys" if where else ""
    parts = (close, _elsewhere(steps) if depth == 1 else "", listed)
    return UserError(f"{key}: there is no such key", remedy=" ".join(p for p in parts if p))


def _elsewhere(steps: Sequence[str]) -> str:
    """Which choices of a group have a key, where the chosen one has not; empty for none."""
    if len(steps) < 2:
        return ""
    group, name = steps[:2]
    files = sorted((own_configs() / group).glob("*.yaml")) if _NAME.fullmatch(group) else []
    if name in [file.stem for file in files]:
        return f"it is there with {group}={name}, or {group}=[...,{name}];"
    having = [f.stem for f in files if re.search(rf"^{re.escape(name)}:", f.read_text(), re.M)]
    return f"it is a key of {group}={', '.join(having)};" if having else ""


def _key(override: str) -> str:
    match = _OVERRIDE.match(override)
    return match["key"] if match else ""


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
