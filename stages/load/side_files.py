"""Small files of a model folder: config, tokenizer, chat template, licence, custom code."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline.errors import UserError
from pipeline.plain_file import is_plain
from stages.model.config_counts import check_counts
from stages.quantized.catalog import quantization_of, reader_of
from stages.weights.checkpoint_files import inside
from stages.weights.untrusted_json import read_json

SUFFIXES = frozenset({".json", ".txt", ".model", ".jinja", ".tiktoken", ".vocab", ".bpe", ".spm"})
LEGAL = ("license", "notice", "use_policy")
FOLDERS = frozenset({"additional_chat_templates"})
LARGEST_CONFIG = 16_000_000


def is_small(name: str, *, code: bool) -> bool:
    """Whether a file of a model folder belongs to the model, beside its weights.

    `name` is relative to the folder; `code` includes custom Python files.
    """
    path = PurePosixPath(name)
    if path.name.startswith(".") or (len(path.parts) > 1 and path.parts[0] not in FOLDERS):
        return False
    if len(path.parts) > 2 or path.name.endswith(".index.json"):
        return False
    if path.suffix == ".py":
        return code and len(path.parts) == 1
    return path.suffix in SUFFIXES or path.name.lower().startswith(LEGAL)


def small_files(folder: Path, *, code: bool) -> dict[str, Path]:
    """The small files of a folder by relative name.

    Raises UserError for links that lead out of it or nowhere, pipes and devices: a model without
    its tokenizer would be another model.
    """
    found: dict[str, Path] = {}
    places = [folder, *(folder / name for name in sorted(FOLDERS))]
    for path in sorted(path for place in places if place.is_dir() for path in place.iterdir()):
        name = path.relative_to(folder).as_posix()
        if is_small(name, code=code) and is_plain(path):
            found[name] = inside(folder, name, said_by=str(folder))
    return found


def has_tokenizer(names: Iterable[str]) -> bool:
    """Whether the small files of a model, by their names, have a tokenizer among them."""
    return any(name.startswith(("tokenizer", "vocab")) for name in names)


def has_chat_template(files: Mapping[str, Path]) -> bool | None:
    """Whether the small files of a model have a chat template; None where they cannot be read."""
    if any(PurePosixPath(name).name.endswith(".jinja") for name in files):
        return True
    for name in ("tokenizer_config.json", "chat_template.json", "processor_config.json"):
        try:
            told = read_json(files[name], longest=LARGEST_CONFIG) if name in files else {}
        except UserError:
            return None
        if told.get("chat_template"):
            return True
    return False


def copy_small(files: Mapping[str, Path], target: Path) -> None:
    """Copy small files to a new folder `target`."""
    for name, path in files.items():
        place = target / name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


def read_config(path: Path) -> dict[str, Any]:
    """Read config.json; UserError if it is missing, no JSON object, or senseless."""
    if not path.is_file():
        raise UserError(
            f"there is no {path}", remedy="give a model folder as transformers writes it"
        )
    config = read_json(path, longest=LARGEST_CONFIG)
    if not isinstance(config.get("model_type"), str):
        raise UserError(
            f"{path} says no model_type", remedy="give a model folder as transformers writes it"
        )
    check_counts(config)
    return config


def check_config(config: Mapping[str, Any], *, trust_remote_code: bool) -> list[UserError]:
    """Problems in a model's config that keep presswork from compressing it."""
    problems: list[UserError] = []
    if config.get("quantization_config"):
        try:
            quantization = quantization_of(Path(), config)
            if quantization is not None:
                reader_of(quantization[1])
        except UserError as error:
            problems.append(error)
    if config.get("auto_map") and not config.get("architectures") and not trust_remote_code:
        problems.append(
            UserError(
                "the model needs its own Python code to run",
                remedy="read that code; if you trust it, say model.trust_remote_code=true",
            )
        )
    return problems
