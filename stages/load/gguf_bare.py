"""A GGUF file without its vocabulary and data, for readers that take seconds over a vocabulary."""

from __future__ import annotations

import struct
from pathlib import Path

from stages.weights.gguf_header import GgufHeader

LONG = frozenset(f"tokenizer.ggml.{name}" for name in ("merges", "scores", "token_type"))
TOKENS = "tokenizer.ggml.tokens"


def write_bare(header: GgufHeader, target: Path) -> None:
    """Write a file with the metadata and tensor list of `header`; its data is one sparse hole.

    The tokens stay where nothing else tells the size of the vocabulary.
    """
    left_out = LONG
    if f"{header.architecture}.vocab_size" in header.spans:
        left_out = LONG | {TOKENS}
    kept = [span for key, span in header.spans.items() if key not in left_out]
    with open(header.path, "rb") as source, open(target, "wb") as out:
        counts = (header.version, len(header.tensors), len(kept))
        out.write(b"GGUF" + struct.pack("<IQQ", *counts))
        for start, end in (*kept, header.table):
            source.seek(start)
            out.write(source.read(end - start))
        out.truncate(header.size)
