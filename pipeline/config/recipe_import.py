"""Recipe import, `recipe=FILE`: another tool's file translated into options of config groups.

The translation is handed to Hydra as if it were in `conf/`: as the option `recipe` of each group
that it sets. So the user's overrides take precedence, and every mode sees the resulting config.
The translators are the entry points `presswork.recipes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException

from pipeline.errors import UserError
from pipeline.nested import leaves
from pipeline.plain_file import open_plain
from pipeline.registry import Registry

KEY = "recipe"
"""The key on the command line, and the name of the option added to each group."""

LARGEST = 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Translation:
    """Config group -> its content, as plain data; `notes` name what was left out, and why."""

    sections: Mapping[str, Mapping[str, Any]]
    notes: tuple[str, ...] = ()


Translator = Callable[[str, Registry], Translation | None]
"""From the text of a file to its translation; None for a file of another kind.

Raises UserError with everything that cannot be translated.
"""


@dataclass(frozen=True, kw_only=True, slots=True)
class Imported:
    """The overrides that choose the options of a recipe, and notes for the user.

    `word` is the word of the command line that names the recipe.
    """

    word: str = ""
    overrides: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def into(self, words: Sequence[str]) -> list[str]:
        """The command line with the overrides right after `word`: arguments stay together."""
        if not self.word:
            return list(words)
        at = list(words).index(self.word) + 1
        return [*words[:at], *self.overrides, *words[at:]]


def imported(words: Sequence[str], load: Callable[[], Registry]) -> Imported:
    """Register the recipe that the overrides `words` name with Hydra, if they name one.

    A group that is chosen in `words` keeps that choice. Raises UserError for a file that cannot
    be read, is no recipe, or has content that cannot be translated.
    """
    given = [override for word in words if (override := _parsed(word)) is not None]
    named = [override for override in given if override.key_or_group == KEY]
    if len(named) > 1 or any(override.is_sweep_override() for override in named):
        raise UserError("there are several recipes", remedy="give one: recipe=FILE")
    value = named[0].value() if named else None
    if value is None:
        return Imported()
    path = Path(str(value)).expanduser()
    translation = translated(path, load())
    store = ConfigStore.instance()
    for group, content in translation.sections.items():
        store.store(group=group, name=KEY, node=dict(content), provider=str(path))
    chosen = {override.key_or_group for override in given}
    return Imported(
        word=str(named[0].input_line),
        overrides=tuple(f"{group}={KEY}" for group in translation.sections if group not in chosen),
        notes=tuple(f"{path}: {note}" for note in translation.notes),
    )


def translated(path: Path, registry: Registry) -> Translation:
    """The translation of a file by the first translator that knows its kind."""
    text = _text(path)
    for kind in registry.kinds(KEY):
        translator: Translator = registry.get(KEY, kind)
        try:
            translation = translator(text, registry)
        except UserError as error:
            raise UserError(f"{path}: {error.what}", remedy=error.remedy) from error
        if translation is not None:
            _check_plain(translation, path)
            return translation
    kinds = ", ".join(registry.kinds(KEY)) or "none"
    raise UserError(
        f"{path} is no recipe that can be read", remedy=f"recipes of these kinds can: {kinds}"
    )


def unfit(error: Exception, given: Imported) -> UserError | None:
    """The error of a primary config without the groups that a recipe sets; None for others."""
    groups = [override.partition("=")[0] for override in given.overrides]
    if not any(f"Could not override '{group}'" in str(error) for group in groups):
        return None
    return UserError(
        f"{KEY}: the defaults of this config choose no {' and no '.join(groups)}, which the "
        "recipe says",
        remedy="give the recipe to a config whose defaults do, such as presswork's own: leave "
        "out --config-name",
    )


def check_given(value: object, overrides: Sequence[str]) -> None:
    """Raise UserError for a recipe that a config file names: only the command line may."""
    if value is not None and not any(word.lstrip("+").startswith(f"{KEY}=") for word in overrides):
        raise UserError(
            f"{KEY} is {value!r} in a config file",
            remedy=f"a recipe is read from the command line only: {KEY}=FILE",
        )


def _parsed(word: str) -> Override | None:
    """A parsed override; None for one that Hydra will reject."""
    try:
        return OverridesParser.create().parse_override(word)
    except HydraException:
        return None


def _text(path: Path) -> str:
    try:
        with open_plain(path) as file:
            data = file.read(LARGEST + 1)
        text = data.decode()
    except OSError as error:
        raise UserError(
            f"{KEY}: {path} cannot be read: {error.strerror}", remedy="give recipe=FILE"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{KEY}: {path} is no text in UTF-8") from error
    if len(data) > LARGEST:
        raise UserError(f"{KEY}: {path} is larger than {LARGEST} bytes: that is no recipe")
    return text


def _check_plain(translation: Translation, path: Path) -> None:
    """Raise UserError for text that a config would resolve, such as `${oc.env:HOME}`."""
    for where, value in _texts(translation.sections):
        if "${" in value or value == "???":
            raise UserError(
                f"{path}: {'.'.join(where)} would become {value!r}, which means something else in "
                "a config",
                remedy="change it in the recipe",
            )


def _texts(sections: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], str]]:
    for path, leaf in leaves(sections):
        yield from ((path, text) for text in (*path, leaf) if isinstance(text, str))
