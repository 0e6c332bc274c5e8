"""Parse untrusted YAML as plain data, bounded in size and depth; nothing is executed.

Only the standard tags of plain data are interpreted. Values with a program's own tag are kept as
`Tagged`, so that errors can say where they are; no object is built from them.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from pipeline.errors import UserError

STANDARD = "tag:yaml.org,2002:"
ENUM = re.compile(rf"{STANDARD}python/object/apply:compressed_tensors(?:\.\w+)+")
"""Tag with which llm-compressor writes an enumeration's member: it is on a list of its name."""

MOST_VALUES = 50_000
DEEPEST = 40
REMEDY = "write plain YAML: mappings, lists, texts, numbers, true, false and null"


@dataclass(frozen=True, slots=True)
class Tagged:
    """A value with a tag that only the program that wrote it can read."""

    tag: str

    def __str__(self) -> str:
        return f"!{self.tag.removeprefix(STANDARD)}" if self.tag.startswith(STANDARD) else self.tag


def parse(text: str) -> Any:
    """The single document in `text` as dicts, lists and scalars.

    Raises UserError for invalid YAML, for keys that are not text or given twice, for numbers that
    are not finite, and for documents that are too deep or (through aliases) too large.
    """
    try:
        # the slow loader: the fast one crashes on deep nesting
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        message = " ".join(str(error).split())
        raise UserError(f"this is no YAML: {message}", remedy=REMEDY) from error
    except RecursionError as error:
        raise UserError("the YAML is nested too deeply", remedy=REMEDY) from error
    return None if root is None else _Reader().value(root, "", 0)


def join(path: str, name: str) -> str:
    """The path of a key in a document, for messages."""
    return f"{path}.{name}" if path else name


@dataclass(slots=True)
class _Reader:
    seen: int = 0
    scalars: yaml.constructor.SafeConstructor = field(
        default_factory=yaml.constructor.SafeConstructor
    )

    def value(self, node: yaml.Node, path: str, depth: int) -> Any:
        self.seen += 1
        if self.seen > MOST_VALUES or depth > DEEPEST:
            raise UserError("the YAML has too many values, or repeats itself", remedy=REMEDY)
        if isinstance(node, yaml.ScalarNode):
            return self.scalar(node, path)
        if isinstance(node, yaml.MappingNode) and node.tag == f"{STANDARD}map":
            return self.mapping(node, path, depth)
        if isinstance(node, yaml.SequenceNode) and node.tag == f"{STANDARD}seq":
            items = enumerate(node.value)
            return [self.value(item, f"{path}[{index}]", depth + 1) for index, item in items]
        if ENUM.fullmatch(node.tag) and isinstance(node, yaml.SequenceNode):
            names = [self.value(item, path, depth + 1) for item in node.value]
            if len(names) == 1 and isinstance(names[0], str):
                return names[0]
        return Tagged(node.tag)

    def mapping(self, node: yaml.MappingNode, path: str, depth: int) -> dict[str, Any]:
        mapping: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or key_node.tag != f"{STANDARD}str":
                raise UserError(f"{path or 'the top'}: a key is no text", remedy=REMEDY)
            here = join(path, key)
            if key in mapping:
                raise UserError(f"{here} is given twice", remedy="leave one of them")
            mapping[key] = self.value(value_node, here, depth + 1)
        return mapping

    def scalar(self, node: yaml.ScalarNode, path: str) -> Any:
        kind = node.tag.removeprefix(STANDARD)
        if kind in ("str", "timestamp", "value", "merge"):  # text that looks like something else
            return node.value
        if kind not in ("null", "bool", "int", "float"):
            return Tagged(node.tag)
        try:
            value = self.scalars.construct_object(node)
        except (ValueError, KeyError, yaml.YAMLError) as error:
            raise UserError(f"{path}: {node.value[:40]!r} is no {kind}", remedy=REMEDY) from error
        if isinstance(value, float) and not math.isfinite(value):
            raise UserError(f"{path} is {value}", remedy="give a finite number")
        return value
