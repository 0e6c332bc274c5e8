"""The two halves of a text as windows of tokens: the first calibrates, the second evaluates."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def halves(text: Path) -> tuple[str, str]:
    """The two halves of a text file, cut at the line break that follows its middle."""
    whole = text.read_text(encoding="utf-8")
    cut = whole.find("\n", len(whole) // 2) + 1
    return whole[:cut], whole[cut:]


def windows(tokenizer: Any, text: str, length: int, limit: int | None = None) -> Any:
    """Consecutive windows without overlap as int64 [n, length]; the rest of the text is left out.

    `limit` bounds n. Raises ValueError where the text gives not even one window.
    """
    import torch

    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"][0]
    count = len(ids) // length
    if count == 0:
        raise ValueError(f"the text has {len(ids)} tokens, fewer than one window of {length}")
    cut: torch.Tensor = ids[: count * length].reshape(count, length)[:limit]
    return cut
