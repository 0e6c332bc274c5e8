"""Model to evaluate: weights and fake quantization, of the original or a compressed checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from pipeline.errors import StageFailed
from pipeline.stage import Artifact
from stages.fake_quant.attention_states import StateRules, state_rules
from stages.formats.compressed_tensors_bridge import parse
from stages.formats.decompressed_source import Decompressed
from stages.formats.input_params import InputRule
from stages.model.artifact_names import CHECKPOINT
from stages.model.blueprint import Blueprint
from stages.quantized.open import open_model
from stages.weights import WeightSource, open_checkpoint
from stages.weights.joined_source import JoinedSource


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """Dense weights by checkpoint name, and fake quantization of inputs and attention states.

    `rules` are by module name. `blueprint` names the tensors as `source` does: compression may have
    untied the lm_head.
    """

    blueprint: Blueprint
    source: WeightSource
    states: StateRules = field(default_factory=StateRules)
    rules: Mapping[str, InputRule]


def original(source: Artifact, blueprint: Blueprint) -> Candidate:
    """The original model."""
    return Candidate(blueprint=blueprint, source=open_model(source, blueprint), rules={})


def compressed(folder: Path, blueprint: Blueprint) -> Candidate:
    """A compressed-tensors checkpoint of the blueprint's model, or a dense one.

    Raises StageFailed for a checkpoint without a readable config.json.
    """
    try:
        config = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise StageFailed(f"the checkpoint in {folder} has no readable config.json") from error
    source: WeightSource = open_checkpoint(folder)
    if blueprint.joins:
        source = JoinedSource(source, blueprint.joins)
    if blueprint.tied and not config.get("tie_word_embeddings", True):
        blueprint = blueprint.untied()
    if not config.get("quantization_config"):
        return Candidate(blueprint=blueprint, source=source, rules={})
    dense = Decompressed(source, config["quantization_config"], getattr(torch, blueprint.dtype))
    prefixes = {linear.name: linear.prefix for linear in blueprint.linears()}
    return Candidate(
        blueprint=blueprint,
        source=dense,
        rules=dense.input_rules(prefixes),
        states=state_rules(dense, parse(config["quantization_config"]), blueprint),
    )


def candidate(inputs: Mapping[str, Artifact], blueprint: Blueprint) -> Candidate:
    """The compressed model if `inputs` has a checkpoint, else the original."""
    if "checkpoint" in inputs:
        return compressed(inputs["checkpoint"].path / CHECKPOINT, blueprint)
    return original(inputs["source"], blueprint)
