"""Python files of a model's own that its configs name (`auto_map`): copied along, never run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pipeline.errors import UserError
from stages.weights.untrusted_json import read_json

CONFIGS = (
    *("config.json", "tokenizer_config.json", "processor_config.json"),
    *("preprocessor_config.json", "video_preprocessor_config.json"),
)
LONGEST = 16_000_000
ELSEWHERE = "--"
"""Separates a repository from a module that `auto_map` names in it."""


def code_files(folder: Path) -> tuple[str, ...]:
    """Names of the Python files that the configs of a folder name, there or not, sorted.

    Files of other repositories on the hub are left out.
    """
    found: set[str] = set()
    for name in CONFIGS:
        if (folder / name).is_file():
            try:
                found.update(named_code(read_json(folder / name, longest=LONGEST)))
            except UserError:
                continue  # told by whoever needs that file
    return tuple(sorted(found))


def named_code(config: Mapping[str, Any]) -> Iterator[str]:
    """The Python files that a parsed config names: `module.Class` is in module.py."""
    stated = config.get("auto_map")
    for value in stated.values() if isinstance(stated, Mapping) else ():
        for reference in value if isinstance(value, list) else [value]:
            if isinstance(reference, str) and ELSEWHERE not in reference and "." in reference:
                yield f"{reference.partition('.')[0]}.py"


def code_warnings(named: tuple[str, ...], there: Mapping[str, Path], where: str) -> Iterator[str]:
    """What a user should know of a model's own code: that it travels along, or is not there."""
    found = [name for name in named if name in there]
    lacking = [name for name in named if name not in there]
    if found:
        yield (
            f"the model has code of its own ({', '.join(found)}): it is copied beside the "
            "compressed model, and nothing here runs it"
        )
    if lacking:
        yield (
            f"configs of {where} name code that is not there ({', '.join(lacking)}): whoever loads "
            "the compressed model with trust_remote_code=True needs it"
        )
