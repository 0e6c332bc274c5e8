"""Catalog of readers of quantized checkpoints by `quant_method`. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from pipeline.errors import UserError
from pipeline.key import Json
from stages.weights.untrusted_json import read_json

if TYPE_CHECKING:
    from stages.quantized.source import QuantizedSource
    from stages.weights.source import WeightSource

LARGEST = 16_000_000
LIBRARY = "compressed-tensors"
DTYPES = ("bfloat16", "float16", "float32")


@dataclass(frozen=True, kw_only=True, slots=True)
class Reader:
    """Module and class (or function) of a reader; `version` rises when it reads other values."""

    place: str
    version: int = 1


READERS = {
    "compressed-tensors": Reader(place="compressed_tensors:CompressedSource"),
    "fp8": Reader(place="fp8:Fp8Source"),
    "awq": Reader(place="awq:AwqSource"),
    "gptq": Reader(place="gptq:GptqSource"),
    "modelopt": Reader(place="modelopt:ModelOptSource"),
    "auto-round": Reader(place="auto_round:auto_round_source"),
    "torchao": Reader(place="torchao:TorchaoSource"),
    "bitsandbytes": Reader(place="bitsandbytes:BitsAndBytesSource"),
    "mxfp4": Reader(place="mxfp4:Mxfp4Source"),
}
SIDE_FILES = {"hf_quant_config.json": "modelopt", "quantize_config.json": "gptq"}
"""Files beside config.json in which older writers state the quantization -> their method."""

INTERNAL = frozenset({*SIDE_FILES, "quant_config.json", "quantization_config.json"})
"""Files that describe the source's own quantization; a checkpoint made from it omits them."""


def quantization_of(folder: Path, config: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """The file that states a model folder's quantization, and its content; None if it is dense.

    Raises UserError for a file that is not a JSON object.
    """
    if config.get("quantization_config"):
        return "config.json", _object(config["quantization_config"], "quantization_config")
    for name, method in SIDE_FILES.items():
        if (folder / name).is_file():
            stated = read_json(folder / name, longest=LARGEST)
            return name, {"quant_method": method, **stated}
    return None


def reader_of(quantization: Mapping[str, Any]) -> Reader:
    """The reader for a `quantization_config`; UserError for a method without a reader."""
    method = quantization.get("quant_method")
    if not isinstance(method, str) or method not in READERS:
        named = repr(method) if method else "an unnamed method"
        raise UserError(
            f"the model is already quantized, by {named}",
            remedy=f"what is read: {', '.join(READERS)}; else give the model that it was made from",
        )
    return READERS[str(method)]


def reading_key(quantization: Mapping[str, Any]) -> Json:
    """Part of the key: what the values that are read depend on, beside the files."""
    reader = reader_of(quantization)
    return {"reader": reader.place, "version": reader.version, LIBRARY: version(LIBRARY)}


def dense_dtype(config: Mapping[str, Any]) -> str:
    """The weights' dtype in a parsed config.json; float32 if it states none.

    Raises UserError for a dtype that dense weights cannot have.
    """
    text = config.get("text_config")
    text = text if isinstance(text, Mapping) else {}
    stated = next(
        (c[key] for c in (config, text) for key in ("dtype", "torch_dtype") if c.get(key)),
        "float32",
    )
    name = str(stated).removeprefix("torch.")
    if name not in DTYPES:
        raise UserError(
            f"config.json says dtype {stated!r}, which dense weights cannot have",
            remedy=f"say one of {', '.join(DTYPES)} there: the dtype to read the weights in",
        )
    return name


def opened(source: WeightSource, quantization: Mapping[str, Any], dtype: str) -> QuantizedSource:
    """A reader over the tensors of `source`; UserError for a config that it does not support."""
    module, _, name = reader_of(quantization).place.partition(":")
    reader_class = getattr(import_module(f"stages.quantized.{module}"), name)
    return cast("QuantizedSource", reader_class(source, quantization, dtype))


def _object(value: object, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise UserError(f"{what} is no JSON object")
    return dict(value)
