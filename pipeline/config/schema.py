"""Typed configs from plain data: unknown keys and wrong types are all reported at once."""

from __future__ import annotations

import dataclasses
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from pipeline.config.environment import Environment
from pipeline.config.units import EXAMPLES, number_of
from pipeline.errors import ManyErrors, UserError
from pipeline.registry import Registry, nearest

T = TypeVar("T")

MISSING = "???"


def build(
    cls: type[T],
    data: object,
    path: str = "",
    registry: Registry | None = None,
    *,
    told_as: Callable[[str], str] = str,
    environment: Environment | None = None,
) -> T:
    """An instance of the dataclass `cls` from plain data (dicts, lists, scalars).

    `path` is where the data stands in the config; `told_as` turns such a path into the one that
    the user wrote, for messages. A field with `metadata={"component": group}` holds a mapping with
    a `kind` and becomes an instance of the class that the registry has for it; one with
    `metadata={"components": group}` holds a mapping of such mappings and becomes a tuple, in order.
    Values of `environment` are told as they are written, and refused in fields with
    `metadata={"lands": True}`, whose values are written into results. Fields with
    `metadata={"unit": "bytes"}` or `"seconds"` also take texts such as 8GB: see
    :mod:`pipeline.config.units`.

    Raises UserError for a key that `cls` does not have, a missing one, a value of another type
    and whatever `__post_init__` rejects; ManyErrors where there are several.
    """
    builder = _Builder(
        registry=registry or Registry(),
        told_as=told_as,
        environment=environment or Environment(),
    )
    value = builder.mapping(cls, data, path)
    problems = list({str(problem): problem for problem in builder.problems}.values())
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise ManyErrors(problems)
    return typing.cast(T, value)


class _Invalid:
    """Sentinel for a value that could not be built; its problem has been recorded."""


_INVALID = _Invalid()


@dataclass(slots=True)
class _Builder:
    """Recursive construction of typed values, collecting every problem."""

    registry: Registry
    told_as: Callable[[str], str]
    environment: Environment
    problems: list[UserError] = field(default_factory=list)

    def fail(self, path: str, what: str, remedy: str = "") -> _Invalid:
        key = self.told_as(path)
        self.problems.append(UserError(f"{key}: {what}" if key else what, remedy=remedy))
        return _INVALID

    def mapping(self, cls: Any, data: object, path: str) -> Any:
        """A dataclass instance, or _INVALID."""
        if not isinstance(data, Mapping):
            given = f"{self.shown(data, path)} ({in_words(type(data))})"
            return self.fail(path, f"{given} is given where a mapping belongs")
        fields = {f.name: f for f in dataclasses.fields(cls) if f.init}
        hints = get_type_hints(cls)
        self.unknown_keys(data, fields, path)
        before = len(self.problems)
        values: dict[str, Any] = {}
        for name, item in fields.items():
            here = _join(path, name)
            if name in data and data[name] != MISSING:
                values[name] = self.field(item, hints[name], data[name], here)
            elif name in data or _required(item):
                key = self.told_as(here)
                self.problems.append(UserError(f"{key} is missing", remedy=f"give {key}=VALUE"))
        if len(self.problems) > before:
            return _INVALID
        try:
            return cls(**values)
        except ManyErrors as errors:
            rejected = errors.errors
        except UserError as error:
            rejected = (error,)
        for each in rejected:
            self.rejected(each, fields, path)
        return _INVALID

    def rejected(self, error: UserError, fields: Mapping[str, object], path: str) -> None:
        """Record an error of `__post_init__`, with the path of the class before the field."""
        section = self.told_as(path)
        error = UserError(
            self.environment.hidden(section, error.what),
            remedy=self.environment.hidden(section, error.remedy),
        )
        last = section.rpartition(".")[2]
        first = re.split(r"\W", error.what, maxsplit=1)[0]
        if section and first == last and error.what[len(first) : len(first) + 1] == ".":
            named = re.match(r"[\w.]+\w", error.what)  # the class names its section itself
            key = named[0] if named else first
            whole = self.told_as(_join(path.rpartition(".")[0], key))
            what = whole + error.what[len(key) :]
        elif section and not error.what.startswith(f"{section.partition('.')[0]}."):
            field = self.told_as(_join(path, first))  # it may be a key of another section
            what = (
                field + error.what[len(first) :] if first in fields else f"{section}: {error.what}"
            )
        else:
            what = error.what
        self.problems.append(UserError(what, remedy=error.remedy))

    def shown(self, data: object, path: str) -> str:
        """A value for messages, without what comes from the environment."""
        return self.environment.shown(self.told_as(path), data)

    def unknown_keys(
        self, data: Mapping[Any, object], fields: Mapping[str, object], path: str
    ) -> None:
        for key in data:
            if key in fields:
                continue
            where = self.told_as(path)
            known = ", ".join(fields) or "none"
            close = nearest(str(key), fields)
            self.problems.append(
                UserError(
                    f"{_join(where, str(key))}: there is no such key",
                    remedy=f"{close + ' ' if close else ''}the keys of {where or 'it'} are {known}",
                )
            )

    def field(self, item: dataclasses.Field[Any], hint: Any, data: object, path: str) -> Any:
        if item.metadata.get("lands"):
            self.problems += self.environment.withheld(self.told_as(path))
        group = item.metadata.get("component")
        if group is not None:
            return None if data is None else self.component(group, data, path)
        group = item.metadata.get("components")
        if group is not None:
            return self.components(group, data, path)
        if isinstance(data, str) and (unit := item.metadata.get("unit")):
            return self.number(unit, hint, data, path)
        return self.value(hint, data, path)

    def number(self, unit: str, hint: Any, text: str, path: str) -> Any:
        """A number of bytes or seconds from a text with units."""
        found = number_of(text, unit)
        whole = int in (get_args(hint) if _is_union(hint) else (hint,))
        if found is None or (whole and found != int(found)):
            given = self.shown(text, path)
            return self.fail(
                path, f"{given} is no number of {unit}", f"write such as {EXAMPLES[unit]}"
            )
        return int(found) if whole else found

    def component(self, group: str, data: object, path: str) -> Any:
        """An instance of the class that the registry has for `data["kind"]`."""
        if not isinstance(data, Mapping) or not isinstance(data.get("kind"), str):
            known = ", ".join(self.registry.kinds(group))
            given = self.shown(data, path)
            return self.fail(path, f"{given} names no kind of {group}", f"the kinds are {known}")
        try:
            cls = self.registry.get(group, data["kind"])
        except UserError as error:
            return self.fail(_join(path, "kind"), error.what, error.remedy)
        schema = cls if dataclasses.is_dataclass(cls) else cls.Config
        params = {name: value for name, value in data.items() if name != "kind"}
        if any(f.name == "kind" and f.init for f in dataclasses.fields(schema)):
            params["kind"] = data["kind"]
        config = self.mapping(schema, params, path)
        return config if config is _INVALID or schema is cls else cls(config)

    def components(self, group: str, data: object, path: str) -> Any:
        """A tuple of components, in the order of the mapping; an empty tuple for None."""
        if data is None:
            return ()
        if not isinstance(data, Mapping):
            given = self.shown(data, path)
            return self.fail(path, f"{given} is given where a mapping by name belongs")
        return tuple(self.component(group, data[name], _join(path, str(name))) for name in data)

    def value(self, hint: Any, data: object, path: str) -> Any:
        """A field's value by its type: nested dataclasses by this module, the rest by OmegaConf."""
        options = get_args(hint) if _is_union(hint) else (hint,)
        if hint is Any or (hint in _FREE and isinstance(data, _FREE[hint])):
            return data
        if data is None and type(None) in options:
            return None
        nested = [option for option in options if dataclasses.is_dataclass(option)]
        if nested:
            return self.mapping(nested[0], data, path)
        for option in options:
            arguments = get_args(option)
            holds = arguments and dataclasses.is_dataclass(arguments[-1])
            if holds and get_origin(option) is dict and isinstance(data, Mapping):
                return {k: self.mapping(arguments[-1], v, _join(path, k)) for k, v in data.items()}
            if holds and get_origin(option) is list and isinstance(data, list):
                return [self.mapping(arguments[-1], v, f"{path}[{i}]") for i, v in enumerate(data)]
        if type(data) in options:  # nothing to convert; leaf would take a millisecond
            return data
        return self.leaf(hint, data, path)

    def leaf(self, hint: Any, data: object, path: str) -> Any:
        holder = dataclasses.make_dataclass("Holder", [("value", hint)])
        try:
            merged = OmegaConf.merge(OmegaConf.structured(holder), {"value": data})
            value = typing.cast(Any, OmegaConf.to_object(merged)).value
        except OmegaConfBaseException:
            value = _INVALID
        if value is _INVALID or _too_deep(hint, value):
            key = self.told_as(path)
            given = self.shown(data, path)
            lists = isinstance(data, str | int | float) and "a list" in in_words(hint)
            remedy = f"write {key}=[{data}]" if lists and given == repr(data) else ""
            self.problems.append(
                UserError(f"{key} is {given}, which is not {in_words(hint)}", remedy=remedy)
            )
            return _INVALID
        return value


_FREE: dict[Any, type] = {dict[str, Any]: dict, list[Any]: list}
"""Types whose content the class itself validates."""


def _too_deep(hint: Any, value: Any) -> bool:
    """Whether an item of a list or mapping of scalars is none: OmegaConf takes any container."""
    for option in get_args(hint) if _is_union(hint) else (hint,):
        if get_origin(option) in (list, dict) and get_args(option)[-1] in (str, int, float, bool):
            items = value.values() if isinstance(value, dict) else value
            return isinstance(value, dict | list) and any(isinstance(i, dict | list) for i in items)
    return False


def _required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, types.UnionType)


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
    list: "a list",
    dict: "a mapping",
}


def in_words(hint: Any) -> str:
    """A type in plain English, for messages."""
    if _is_union(hint):
        return " or ".join(in_words(option) for option in get_args(hint))
    origin = get_origin(hint)
    if origin in (list, dict) and get_args(hint)[-1] is not Any:
        return f"{_WORDS[origin]} in which each item is {in_words(get_args(hint)[-1])}"
    return _WORDS.get(origin or hint, getattr(hint, "__name__", str(hint)))
