"""Model argument of a call from Python: a short text, or an object that is saved as a source."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import UserError

SHARD = "2GB"
"""Size of the files of a saved object: what is copied to host memory at a time."""


def saved(argument: str, arguments: Mapping[str, Any], folder: Path) -> Mapping[str, Any] | None:
    """Overrides for `model` and `processor`; objects are saved into `folder`/model.

    A text is a folder, a .gguf file, `org/name` of the hub, or an option of the group `model`, in
    this order. An object has `save_pretrained`: its weights as they are in memory get an identity
    by content, so that the same ones have the same keys.
    """
    value, target = arguments[argument], folder / "model"
    if argument == "processor":
        if not hasattr(arguments.get("model"), "save_pretrained"):
            raise UserError(
                "processor is given, but no model object",
                remedy="a model's folder has its tokenizer's files beside the weights",
            )
        if not hasattr(value, "save_pretrained"):
            raise UserError(
                f"processor is of type {type(value).__name__}",
                remedy="give a tokenizer or processor of transformers",
            )
        value.save_pretrained(target)
        return {}
    if argument != "model":
        return None
    if isinstance(value, str | Path):
        return _named(value)
    if not hasattr(value, "save_pretrained"):
        return None
    if any(parameter.device.type == "meta" for parameter in value.parameters()):
        raise UserError(
            "some weights of the model object are not in memory (device meta)",
            remedy="give the folder it was loaded from",
        )
    with _without_bars():
        value.save_pretrained(target, max_shard_size=SHARD)
    return {"model": "local", "model.path": target}


@contextmanager
def _without_bars() -> Iterator[None]:
    """Context in which transformers shows no progress of its own."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _named(value: str | Path) -> Mapping[str, Any]:
    path = Path(value).expanduser()
    if path.is_dir():
        return {"model": "local", "model.path": path.absolute()}
    if path.suffix == ".gguf":
        return {"model": "gguf", "model.path": path.absolute()}
    if isinstance(value, Path) or path.is_absolute() or str(value).startswith((".", "~")):
        raise UserError(f"there is no folder {value}", remedy="give a model's folder")
    if str(value).count("/") == 1:
        return {"model": "hub", "model.id": str(value)}
    return {"model": str(value)}
