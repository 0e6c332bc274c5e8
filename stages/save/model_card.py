"""Model card (README.md) of a compressed checkpoint."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

WORST = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Content of a model card; `rows` and `fallbacks` are those of result.json.

    `source_format` is the quantization method of the original, None if it was dense; `dense` is the
    dtype of weights that are saved dense, None if they are compressed.
    """

    name: str | None
    architecture: str
    identity: str
    license: str | None
    size: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    fallbacks: Sequence[Mapping[str, Any]]
    recipe: str
    source_format: str | None = None
    dense: str | None = None


def model_card(card: Card) -> str:
    """The text of README.md: front matter for hubs, description, sizes, formats and recipe."""
    formats = Counter(str(row["scheme"]) for row in card.rows)
    main = formats.most_common(1)[0][0] if formats else "dense"
    front = {
        **({"license": card.license} if card.license else {}),
        "library_name": "transformers",
        "tags": ["presswork"] if card.dense else ["compressed-tensors", "presswork"],
    }
    lines = [
        f"---\n{yaml.safe_dump(front, sort_keys=False)}---",
        f"# {card.name or f'{card.architecture}, {main}'}",
        _description(card),
        _sizes(card),
        _table(["format", "modules"], [[name, str(count)] for name, count in formats.items()]),
        *_worst(card.rows),
        *_fallbacks(card.fallbacks),
        f"## Recipe\n\n```yaml\n{card.recipe}```",
        f"## Source\n\n`{card.identity}`; the keys of every step are in `provenance.json`.",
    ]
    return "\n\n".join(lines) + "\n"


def _description(card: Card) -> str:
    if card.dense is None:
        return (
            "A compressed-tensors checkpoint made by presswork. vLLM, SGLang and transformers load "
            "it like any other model folder."
        )
    return (
        f"Plain {card.dense} weights, each rounded to a value of the format below "
        "(save.compressed=false): as large as a dense model, for any tool that knows nothing of "
        "quantization. Inputs of modules are not quantized when this folder is run."
    )


def _sizes(card: Card) -> str:
    size = card.size
    rows = [["original", f"{size['original_bytes'] / 1e6:.1f} MB"]]
    if card.source_format is not None:
        rows = [
            ["original, dense", rows[0][1]],
            [f"original, stored as {card.source_format}", f"{size['source_bytes'] / 1e6:.1f} MB"],
        ]
    rows += [
        ["dense" if card.dense else "compressed", f"{size['compressed_bytes'] / 1e6:.1f} MB"],
        ["bits per weight, embeddings included", f"{size['bits_per_weight']:.2f}"],
    ]
    return _table(["", "size"], rows)


def _worst(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    known = [row for row in rows if row["relative_error"] is not None]
    worst = sorted(known, key=lambda row: (-row["relative_error"], row["name"]))[:WORST]
    if not worst:
        return []
    shown = [[f"`{row['name']}`", f"{row['relative_error']:.2e}"] for row in worst]
    return [f"Largest relative errors:\n\n{_table(['module', 'error'], shown)}"]


def _fallbacks(fallbacks: Sequence[Mapping[str, Any]]) -> list[str]:
    if not fallbacks:
        return []
    lines = "\n".join(f"- `{x['module']}` was {x['action']}: {x['reason']}" for x in fallbacks)
    return [f"## Not as asked for\n\n{lines}"]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
