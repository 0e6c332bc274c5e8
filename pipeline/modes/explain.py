"""`mode=explain key=KEY`: meaning, allowed values, value and origin of a config key."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from rich.table import Table

from pipeline.config.environment import Environment
from pipeline.config.key_help import Place, meaning, place_of
from pipeline.config.origins import Composition
from pipeline.config.root import Config
from pipeline.config.root_schema import RootConfig
from pipeline.errors import UserError
from pipeline.machine.processor import brief, processor
from pipeline.masking import masked
from pipeline.nested import leaves
from pipeline.registry import Registry, nearest

ABSENT = object()
ON_PROCESSORS = (
    "Calibration, solvers and evaluation round a little differently on another kind of processor: "
    "what they computed on a CPU is used again on this kind only, {}; results of all other steps "
    "are used again anywhere."
)


def explain(config: Config, run_dir: Path) -> int:
    """Print the help on `key`, or on every key below it; exit code 0."""
    del run_dir
    if not config.key:
        raise UserError(
            "mode=explain is told no key",
            remedy="say key=KEY, such as key=scheme.weights.group_size; key=scheme shows all of it",
        )
    path = tuple(config.key.replace("[", ".").replace("]", "").split("."))
    registry, composition = Registry.load(), Composition.current()
    plain = plain_of(config.raw)
    value = _value(plain, path)
    place = place_of(path, plain, RootConfig, registry)
    if value is ABSENT and place is None:
        raise _unknown(path, plain, composition)
    console = Console(highlight=False)
    title = config.key if isinstance(value, Mapping) else f"{config.key} = {_shown(value)}"
    console.print(title, style="bold", markup=False, soft_wrap=True)
    if place is not None and (text := meaning(place.cls, place.name)):
        console.print(f"  {text}", markup=False)
    if isinstance(value, Mapping) and value:
        console.print(_below(path, plain, registry))
        rows = []
    else:
        rows = list(_facts(path, place, value, registry))
    if options := composition.options("/".join(path)):
        rows.append(("options", ", ".join(options)))
    table = _table()
    for label, text in (*rows, *_settings(path, composition)):
        table.add_row(f"  {label}", text)
    console.print(table)
    if path == ("device",):
        console.print(f"  {ON_PROCESSORS.format(brief(processor()))}", markup=False)
    return 0


def _facts(
    path: tuple[str, ...], place: Place | None, value: Any, registry: Registry
) -> Iterator[tuple[str, str]]:
    """What a key may be, and what it is where nobody sets it, as (label, text)."""
    if place is None:
        return
    if place.name != path[-1] and not path[-1].isdigit():
        inside = ".".join(path[: path.index(place.name) + 1]) if place.name in path else place.name
        yield "type", f"any value: {inside} may have keys of any name"
        return
    yield "type", place.type()
    for text in place.allowed(registry):
        yield "allowed", text
    if place.default is dataclasses.MISSING:
        yield "default", "none: a file or the command line must set it"
    else:
        yield "default", f"{_shown(place.default)}, where no file and no command line sets it"
    if value is ABSENT:
        yield "now", f"not in this config; +{'.'.join(path)}=VALUE adds it"


def _below(path: tuple[str, ...], plain: Mapping[str, Any], registry: Registry) -> Table:
    """One line for each key of a section."""
    table = _table()
    for name, item in _value(plain, path).items():
        place = place_of((*path, str(name)), plain, RootConfig, registry)
        text = "" if place is None or name == "kind" else meaning(place.cls, place.name)
        shown = "..." if isinstance(item, Mapping) and item else _shown(item)
        table.add_row(f"{name} = {shown}", text)
    return table


def _settings(path: tuple[str, ...], composition: Composition) -> Iterator[tuple[str, str]]:
    """Who sets a key, in the order in which they do, as (label, text)."""
    for number, setting in enumerate(composition.settings(path)):
        label = "set by" if number == 0 else "then by"
        value = "" if isinstance(setting.value, Mapping) else f": {_shown(setting.value)}"
        yield label, f"{setting.place}{value}  ({masked(setting.why)})"


def _table() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table


def plain_of(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The config with references resolved where possible; the graph unresolved.

    Values of the environment stay as they are written.
    """
    cfg = OmegaConf.create(dict(raw))
    environment = Environment.of(cfg)
    plain: dict[str, Any] = {"graph": raw["graph"]}
    for name in (name for name in raw if name != "graph"):
        try:
            node = cfg[name]
            config = OmegaConf.is_config(node)
            plain[name] = OmegaConf.to_container(node, resolve=True) if config else node
        except OmegaConfBaseException:
            plain[name] = raw[name]  # a dangling reference is shown as written
    return {name: environment.kept(raw[name], value, (name,)) for name, value in plain.items()}


def _value(plain: Mapping[str, Any], path: tuple[str, ...]) -> Any:
    value: Any = plain
    for step in path:
        if isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        elif isinstance(value, Mapping) and step in value:
            value = value[step]
        else:
            return ABSENT
    return value


def _shown(value: Any) -> str:
    if value is ABSENT:
        return "(not in this config)"
    if value is None or isinstance(value, bool):
        return str(value).lower().replace("none", "null")
    if isinstance(value, Mapping):
        return "" if value else "{}"
    return masked(str(value))


def _unknown(
    path: tuple[str, ...], plain: Mapping[str, Any], composition: Composition
) -> UserError:
    """The error for an unknown key, with similar keys, the same name elsewhere, or choices."""
    depth = 0
    while depth < len(path) and _value(plain, path[: depth + 1]) is not ABSENT:
        depth += 1
    here = _value(plain, path[:depth])
    names = list(here) if isinstance(here, Mapping) else []
    elsewhere = [".".join(leaf) for leaf, _ in leaves(plain) if leaf[-1] == path[-1]]
    elsewhere = [name for name in elsewhere if not name.startswith("graph.")]
    close = nearest(path[depth], names) if depth < len(path) else ""
    if not close and elsewhere:
        close = f"did you mean {' or '.join(elsewhere[:3])}?"
    listed = f"the keys of {'.'.join(path[:depth])} are" if depth else "the top-level keys are"
    hints = [close, f"{listed} {', '.join(map(str, names))}" if names else ""]
    if 0 < depth < len(path):
        hints.insert(0, composition.remedy("/".join(path[:depth]), path[depth]))
    key = ".".join(path)
    return UserError(
        f"{key}: there is no such key", remedy="; ".join(hint for hint in hints if hint)
    )
