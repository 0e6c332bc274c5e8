"""Options of models in GGUF files (`gguf` and `wheel`): dtype and semantics. No torch here."""

from __future__ import annotations

from importlib.metadata import version

from pipeline.errors import UserError
from pipeline.key import Json

DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def check_dtype(dtype: str) -> None:
    """Raise UserError for a dtype to which weights cannot be dequantized."""
    if dtype not in DTYPES:
        raise UserError(
            f"model.dtype is {dtype!r}", remedy=f"choose one of {', '.join(sorted(DTYPES))}"
        )


def gguf_semantics(dtype: str) -> Json:
    """Part of the key: dequantized values depend on the dtype and on the libraries used."""
    return {"dtype": dtype, "gguf": version("gguf"), "transformers": version("transformers")}
