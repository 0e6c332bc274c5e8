"""What `gguf` and `wheel` models share: one GGUF file, described without torch."""

from __future__ import annotations

from importlib.metadata import version

from pipeline.errors import UserError
from pipeline.key import Json

DTYPES = {"bfloat16": "BF16", "float16": "F16", "float32": "F32"}


def check_dtype(dtype: str) -> None:
    """UserError for a dtype that weights cannot be dequantised to."""
    if dtype not in DTYPES:
        raise UserError(
            f"model.dtype is {dtype!r}", remedy=f"choose one of {', '.join(sorted(DTYPES))}"
        )


def gguf_semantics(dtype: str) -> Json:
    """Dequantised values depend on the libraries that know the format, too."""
    return {"dtype": dtype, "gguf": version("gguf"), "transformers": version("transformers")}
