"""`mode=explain key=KEY`: meaning, allowed values, value and origin of a config key."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
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
from pipeline.machine.processor import processor
from pipeline.masking import masked
from pipeline.nested import leaves
from pipeline.registry import Registry, nearest

ABSENT = object()
ON_PROCESSORS = (
    "On a CPU, steps that sum floating-point numbers (calibration, solvers, evaluation) have keys "
    "with the processor in them, for another one sums in another order: their results are used "
    "again on processors like this one, those of all other steps everywhere. It is "
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
    plain = _plain(config.raw)
    value = _value(plain, path)
    place = place_of(path, plain, RootConfig, registry)
    if value is ABSENT and place is None:
        raise _unknown(path, plain, composition)
    console = Console(highlight=False)
    console.print(f"{config.key} = {_shown(value)}", style="bold", markup=False, soft_wrap=True)
    if place is not None and (text := meaning(place.cls, place.name)):
        console.print(f"  {text}", markup=False)
    if isinstance(value, Mapping) and value:
        console.print(_below(path, plain, registry))
    else:
        console.print(_facts(place, value, registry))
    if options := composition.options("/".join(path)):
        console.print(f"  options    {', '.join(options)}", markup=False, soft_wrap=False)
    console.print(_settings(path, composition))
    if path == ("device",):
        console.print(f"  {ON_PROCESSORS}{processor()}", markup=False)
    return 0


def _facts(place: Place | None, value: Any, registry: Registry) -> Table:
    table = _table()
    if place is None:
        return table
    table.add_row("type", place.type())
    for text in place.allowed(registry):
        table.add_row("allowed", text)
    default = place.default
    text = "must be given" if default is dataclasses.MISSING else _shown(default)
    table.add_row("default", f"{text} (where no file says another: {place.cls.__name__})")
    if value is ABSENT:
        table.add_row("now", "not in this config; +KEY=VALUE adds it")
    return table


def _below(path: tuple[str, ...], plain: Mapping[str, Any], registry: Registry) -> Table:
    """One line for each key of a section."""
    table = _table()
    for name, item in _value(plain, path).items():
        place = place_of((*path, str(name)), plain, RootConfig, registry)
        text = "" if place is None or name == "kind" else meaning(place.cls, place.name)
        shown = "..." if isinstance(item, Mapping) and item else _shown(item)
        table.add_row(f"{name} = {shown}", text)
    return table


def _settings(path: tuple[str, ...], composition: Composition) -> Table:
    table = _table()
    settings = composition.settings(path)
    for number, setting in enumerate(settings):
        label = "set by" if number == 0 else "then by"
        value = "" if isinstance(setting.value, Mapping) else f": {_shown(setting.value)}"
        table.add_row(label, f"{setting.place}{value}  ({masked(setting.why)})")
    return table


def _table() -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    return table


def _plain(raw: Mapping[str, Any]) -> dict[str, Any]:
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
