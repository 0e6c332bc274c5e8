"""Help on a config key: meaning, type and allowed values, from the dataclass that declares it."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin, get_type_hints

from pipeline.config.references import aliases
from pipeline.config.schema import build, in_words
from pipeline.errors import ManyErrors, UserError
from pipeline.nested import Path
from pipeline.registry import Registry

_REFERENCE = re.compile(r"\s*\((?:see )?:\w+:`[^`]*`\)")
"""A reference to a module, for readers of the code."""
_SENTENCE = re.compile(r"(?<=[.;])\s+(?=[A-Z`\"])")


def meaning(cls: type[Any], name: str) -> str:
    """The documentation of field `name` of a dataclass; empty if it has none.

    That is the docstring under the field, or else the sentences of the class's docstring that have
    the name in backticks; base classes count as well, the nearest first.
    """
    for base in cls.__mro__:
        if not dataclasses.is_dataclass(base):
            continue
        text = _under_fields(base).get(name) or _in_docstring(base, name)
        if text:
            return _REFERENCE.sub("", text).rstrip(";")
    return ""


def _under_fields(cls: type[Any]) -> dict[str, str]:
    """Field -> the docstring below it in the class's source."""
    try:
        source = textwrap.dedent(inspect.getsource(cls))
    except OSError:  # a class created at run time has no file
        return {}
    body = ast.parse(source).body[0]
    if not isinstance(body, ast.ClassDef):
        return {}
    texts: dict[str, str] = {}
    for item, below in zip(body.body, body.body[1:], strict=False):
        if not isinstance(item, ast.AnnAssign) or not isinstance(item.target, ast.Name):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            texts[item.target.id] = _one_line(str(below.value.value))
    return texts


def _in_docstring(cls: type[Any], name: str) -> str:
    text = _one_line(cls.__doc__ or "")
    sentences = _SENTENCE.split(text)
    return " ".join(sentence for sentence in sentences if f"`{name}`" in sentence)


def _one_line(text: str) -> str:
    return " ".join(text.split())


PROBES: Mapping[type, tuple[Any, ...]] = {
    str: ("?",),
    int: (-1, 10**12),
    float: (-1.0, 1e12),
    list: (["?"],),
}
"""Values that a check of a closed set or a range rejects, by type."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A field of a config class; `data` is the part of the config that the class is built from."""

    cls: type[Any]
    name: str
    data: Mapping[str, Any]

    @property
    def field(self) -> dataclasses.Field[Any]:
        return next(f for f in dataclasses.fields(self.cls) if f.name == self.name)

    @property
    def hint(self) -> Any:
        return get_type_hints(self.cls)[self.name]

    @property
    def default(self) -> Any:
        """The default of the field; dataclasses.MISSING if it is required."""
        factory = self.field.default_factory
        return self.field.default if factory is dataclasses.MISSING else factory()

    def type(self) -> str:
        """The type in words."""
        component = self.field.metadata.get("component") or self.field.metadata.get("components")
        return f"a {component} by its kind" if component else in_words(self.hint)

    def allowed(self, registry: Registry) -> list[str]:
        """The allowed values in words: the remedies of the class's checks for invalid values."""
        known = {f.name for f in dataclasses.fields(self.cls) if f.init}
        given = {name: value for name, value in self.data.items() if name in known}
        try:
            valid = build(self.cls, given, "", registry)
        except UserError:
            return []
        remedies: list[str] = []
        for probe in self._probes():
            try:
                dataclasses.replace(valid, **{self.name: probe})
            except UserError as error:
                remedies += [
                    e.remedy for e in _each(error) if re.search(rf"\b{self.name}\b", e.what)
                ]
        return list(dict.fromkeys(remedy for remedy in remedies if remedy))

    def _probes(self) -> Iterator[Any]:
        options = get_args(self.hint) or (self.hint,)
        kinds = {str} if self.hint is Any else {self.hint, get_origin(self.hint), *options}
        for kind, probes in PROBES.items():
            if kind in kinds:
                yield from probes
                return


def place_of(
    key: Path, raw: Mapping[str, Any], root: type[Any], registry: Registry
) -> Place | None:
    """The field that `key` sets: in the root schema, or in the stage whose params refer to it.

    None for a key that no class declares, such as a section that is only a namespace.
    """
    if key[0] in root.__dataclass_fields__:
        return _walk(root, key, raw, registry)
    places: list[Place] = []
    for cls, written, section in _params(raw, registry):
        if key[: len(section)] == section:
            path = (*written, *key[len(section) :])
            place = _walk(cls, path, _placed(raw, written, section), registry)
            places += [] if place is None else [place]
    # several stages may take the section: one that documents it is preferred
    documented = (place for place in places if meaning(place.cls, place.name))
    return next(documented, places[0] if places else None)


def _params(raw: Mapping[str, Any], registry: Registry) -> Iterator[tuple[type[Any], Path, Path]]:
    """(stage's config class, path in its params, path of the section referred to there)."""
    for site in raw["graph"]["nodes"].values():
        cls = registry.get("stage", site["kind"]).Config
        for written, section in aliases(site.get("params") or {}, ()):
            yield cls, tuple(written.split(".")), tuple(section.split("."))


def _placed(raw: Mapping[str, Any], written: Path, section: Path) -> dict[str, Any]:
    """The section at its path in the params."""
    value: Any = raw
    for step in section:
        value = value.get(step) if isinstance(value, Mapping) else None
    for step in reversed(written):
        value = {step: value}
    return dict(value)


def _walk(cls: type[Any], path: Sequence[str], data: Any, registry: Registry) -> Place | None:
    name, rest = path[0], path[1:]
    fields = {f.name: f for f in dataclasses.fields(cls)}
    if name not in fields:
        return None
    here = Place(cls=cls, name=name, data=data if isinstance(data, Mapping) else {})
    if not rest:
        return here
    below = here.data.get(name)
    metadata = fields[name].metadata
    if "components" in metadata:
        below, rest = (below or {}).get(rest[0]), rest[1:]
    group = metadata.get("component") or metadata.get("components")
    if group is not None:
        kind = below.get("kind") if isinstance(below, Mapping) else None
        if kind is None:
            return None if rest else here
        if not rest or rest[0] == "kind":
            return here
        component: type[Any] = registry.get(group, kind)
        config = component if dataclasses.is_dataclass(component) else component.Config
        return _walk(config, rest, below, registry)
    for option in (here.hint, *get_args(here.hint)):
        if isinstance(option, type) and dataclasses.is_dataclass(option):
            return _walk(option, rest, below, registry)
        held = get_args(option)[-1:] if get_origin(option) in (dict, list) else ()
        if held and dataclasses.is_dataclass(held[0]) and len(rest) > 1:
            item = below.get(rest[0]) if isinstance(below, Mapping) else None
            return _walk(held[0], rest[1:], item, registry)  # type: ignore[arg-type]
    return here


def _each(error: UserError) -> tuple[UserError, ...]:
    return error.errors if isinstance(error, ManyErrors) else (error,)
