"""The writer of a checkpoint and its version, as far as its files say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.plain_file import is_plain, open_plain

LONGEST_RECIPE = 200_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Producer:
    """A writer's name, its version ("" where nothing says it), and what says so."""

    name: str
    version: str
    evidence: str


def producers(
    path: Path, settings: Mapping[str, Any], quantization: Mapping[str, Any] | None
) -> list[Producer]:
    """All that the files say of who wrote them, the most direct first."""
    found: list[Producer] = []
    stated = quantization or {}
    if is_plain(path / "provenance.json"):
        found.append(Producer(name="presswork", version="", evidence="provenance.json"))
    elif is_plain(path / "recipe.yaml") and _stages(path / "recipe.yaml"):
        found.append(Producer(name="llm-compressor", version="", evidence="recipe.yaml has stages"))
    found += _stated(stated)
    version = settings.get("transformers_version")
    if isinstance(version, str):
        evidence = "transformers_version in config.json"
        found.append(Producer(name="transformers", version=version, evidence=evidence))
    return found


def _stated(stated: Mapping[str, Any]) -> list[Producer]:
    """What a quantization_config says."""
    found = []
    if isinstance(version := stated.get("autoround_version"), str):
        found.append(Producer(name="auto-round", version=version, evidence="autoround_version"))
    if isinstance(made := stated.get("producer"), Mapping):
        name, version = str(made.get("name") or ""), str(made.get("version") or "")
        found.append(Producer(name=name, version=version, evidence="producer"))
    meta = stated.get("meta")
    quantizers = meta.get("quantizer") if isinstance(meta, Mapping) else None
    for each in quantizers if isinstance(quantizers, list) else [quantizers]:
        if isinstance(each, str):
            name, _, version = each.partition(":")
            found.append(Producer(name=name, version=version, evidence="meta.quantizer"))
    if stated.get("quant_method") == "compressed-tensors":
        version = str(stated.get("version") or "")
        evidence = "version in quantization_config"
        found.append(Producer(name="compressed-tensors", version=version, evidence=evidence))
    return found


def _stages(recipe: Path) -> bool:
    """Whether a recipe.yaml is llm-compressor's: its top keys end in `_stage`."""
    with open_plain(recipe) as file:
        text = file.read(LONGEST_RECIPE).decode(errors="replace")
    return any(line.rstrip().endswith("_stage:") for line in text.splitlines() if line[:1].strip())
