"""Blueprints that plans have drawn, in the user's cache: the next plan needs no transformers.

`mode=plan` stores nothing, so that the plan of a model that was never loaded would import torch and
transformers each time, which takes most of its time. A file is named by all that its blueprint
follows from; losing it costs time only.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import stages.model
from pipeline.errors import UserError
from pipeline.key import Json
from stages.model.blueprint import Blueprint
from stages.model.blueprint_from_names import Spec

DRAWING = Path(stages.model.__file__).parent
MOST = 64
"""Blueprints that are kept, the last used ones."""
OWN_CLASSES = "auto_map"
"""The key by which a config.json names classes of its own, whose code is in no name here."""


def remembered(
    draw: Callable[[], Blueprint],
    *,
    semantics: Json,
    model: Mapping[str, Any],
    specs: Mapping[str, Spec] | None,
) -> Blueprint:
    """The blueprint that `draw` makes, or the one that an earlier plan made from the same.

    `semantics` is what of the stage decides it, `model` the config.json, and `specs` the shapes and
    dtypes of the tensors by name, None where they are not known.
    """
    if OWN_CLASSES in model:
        return draw()
    from stages.weights.hashes import memory_file  # with libraries that a stored result spares

    path = memory_file().parent / "blueprints" / f"{_digest(semantics, model, specs)}.json"
    try:
        found = Blueprint.from_json(json.loads(path.read_bytes()))
        os.utime(path)
        return found
    except (OSError, ValueError, UserError):
        pass  # there is none, or it is not ours: it is drawn
    blueprint = draw()
    _keep(path, blueprint)
    return blueprint


def _digest(semantics: Json, model: Mapping[str, Any], specs: Mapping[str, Spec] | None) -> str:
    tensors = None if specs is None else {n: [list(s.shape), s.dtype] for n, s in specs.items()}
    about = [semantics, version("transformers"), _code(DRAWING), model, tensors]
    return hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()


@cache
def _code(folder: Path) -> str:
    """State of the Python files that draw: whoever changes them must see what they draw then."""
    found = sorted((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in folder.rglob("*.py"))
    return hashlib.sha256(json.dumps(found).encode()).hexdigest()


def _keep(path: Path, blueprint: Blueprint) -> None:
    """Write it, and remove the files that were not used for longest."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(blueprint.to_json(), file)
        os.replace(name, path)
        by_age = sorted(path.parent.iterdir(), key=lambda p: p.stat().st_mtime, reverse=True)
        for old in by_age[MOST:]:
            old.unlink(missing_ok=True)
    except OSError:
        return  # a read-only or full home costs drawing it again next time, nothing else
