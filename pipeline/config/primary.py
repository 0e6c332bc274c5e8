"""Primary config of a command: its folder and name, and composing it with other overrides."""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig
from packaging.version import Version

from pipeline.config.searchpath import including, own_configs
from pipeline.errors import UserError
from pipeline.registry import nearest

_HOME = re.compile(r"(?:^|(?<=[,\[]))~(?=/|$|[,\]])")
SWEEPING = ("-m", "--multirun", "hydra.mode=MULTIRUN")
COMMANDS = ("run", "multirun", "cfg", "info", "shell_completion")
"""Options of Hydra of which it takes one at a time."""


@dataclass(frozen=True, slots=True)
class PrimaryConfig:
    """The primary config that the command line names, and its overrides."""

    folder: Path
    name: str
    overrides: tuple[str, ...]
    extra: Path | None = None
    """The folder of --config-dir, if it is not the primary config's."""

    def compose(self, overrides: Sequence[str]) -> DictConfig:
        """The primary config composed with these overrides, for looking up its keys."""
        with self.initialized():
            return hydra.compose(self.name, overrides=list(overrides))

    @contextmanager
    def initialized(self) -> Iterator[None]:
        """Initialize Hydra as it will be for the command itself."""
        with including(self.extra), hydra.initialize_config_dir(str(self.folder), **rules()):
            yield


def primary_config(argv: Sequence[str]) -> PrimaryConfig:
    """Find the folder of the primary config.

    It is presswork's own, unless --config-dir and --config-name together name a file: Hydra
    searches its main folder first, where `config` would be presswork's.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for short, name in (("-cd", "config-dir"), ("-cn", "config-name"), ("-cp", "config-path")):
        parser.add_argument(short, f"--{name}")
    options, rest = parser.parse_known_args(argv)
    folder = own_configs()
    if options.config_path:
        folder = Path(options.config_path).resolve()
    elif options.config_dir and options.config_name:
        named = Path(options.config_dir).resolve()
        if (named / f"{options.config_name.removesuffix('.yaml')}.yaml").is_file():
            folder = named
    return PrimaryConfig(
        folder=folder,
        name=options.config_name or "config",
        extra=Path(options.config_dir).resolve() if options.config_dir else None,
        overrides=tuple(word for word in rest if not word.startswith("-")),
    )


def check_options(options: argparse.Namespace) -> None:
    """Raise UserError for options of Hydra that it would refuse with a traceback, or are not safe.

    `options` are parsed by Hydra's own parser.
    """
    for word in options.overrides or ():
        if word.startswith("="):
            raise UserError(f"{word!r} names no key", remedy=f"write KEY{word}")
    if options.experimental_rerun is not None:
        raise UserError(
            "--experimental-rerun runs a pickle, which can hold any code",
            remedy="start a run again from its config.yaml: --config-dir DIR --config-name config",
        )
    if options.resolve and not (options.cfg or options.help):
        raise UserError("--resolve only shows a config", remedy="say --cfg job --resolve")
    given = [f"--{name}" for name in COMMANDS if getattr(options, name)]
    if len(given) > 1:
        raise UserError(f"{' and '.join(given)} exclude each other", remedy="leave one of them out")


def gathered(argv: Sequence[str]) -> list[str]:
    """The arguments of a command line with its overrides at the end, in their order.

    Hydra takes overrides from one place only: `a=1 --config-dir DIR b=2` is an error there, and so
    would be `a=1,2 -m` with an override that is added at the end. Raises UserError where an option
    is not known.
    """
    rest = list(arguments(argv).overrides or ())
    overrides, options = list(rest), list[str]()
    for word in argv:
        if rest and word == rest[0]:
            rest.pop(0)
        else:
            options.append(word)
    return [*options, *overrides]


def arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Hydra's options and the overrides of a command line.

    Raises UserError for an option that Hydra does not have: keys of the config are no options.
    """
    parser = get_args_parser()
    found, unknown = parser.parse_known_intermixed_args(list(argv))
    if not unknown:
        return found
    option, _, value = unknown[0].partition("=")
    key, at = option.lstrip("-").replace("-", "_"), list(argv).index(unknown[0])
    if not value and at + 1 < len(argv) and not argv[at + 1].startswith("-"):
        value = argv[at + 1]
    options = [name for action in parser._actions for name in action.option_strings]
    close = nearest(option, options)
    remedy = f"{close} " if close else ""
    if value and "=" not in value:
        remedy += f"keys of the config have no dashes: {key}={value}"
    raise UserError(
        f"there is no option {option}",
        remedy=remedy.strip() or f"the options are {', '.join(sorted(options))}",
    )


def asks_sweep(words: Sequence[str]) -> bool:
    """Whether a command line starts a sweep (rather than only print something)."""
    prints = ("-c", "--cfg", "-i", "--info", "-h", "--help", "--hydra-help", "-sc")
    return any(word in SWEEPING for word in words) and not any(
        word.partition("=")[0] in prints for word in words
    )


def at_home(word: str) -> str:
    """An override with `~/` at the start of its values as the shell writes it elsewhere.

    bash expands it only where a variable is set, and Hydra's grammar has no `~` there.
    """
    key, equals, value = word.partition("=")
    if not equals or word.startswith("-"):
        return word
    return f"{key}={_HOME.sub(lambda _: os.path.expanduser('~'), value)}"


def rules() -> dict[str, Any]:
    """Arguments that select Hydra's current behaviour.

    1.4 warns about `version_base`; before, leaving it out selects the behaviour of 1.1.
    """
    return {} if Version(hydra.__version__) >= Version("1.4.0.dev0") else {"version_base": "1.3"}
