"""Round to nearest gives the bytes that llm-compressor 0.14.0.1 gave, without llm-compressor."""

from __future__ import annotations

import dataclasses
import json

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from pipeline.config.schema import build
from pipeline.config.searchpath import own_configs
from stages.compress.layer.state import LayerState, LazyTensors
from stages.compress.layer.statistics import Statistics
from stages.compress.modifiers.rtn import Rtn
from stages.compress.run import compress_layer
from stages.model.blueprint import Blueprint
from stages.schemes.resolve import resolve
from stages.schemes.scheme import SchemeConfig
from tests.differential.cases import CASES, Case
from tests.differential.frozen import digests, read
from tests.differential.models import FAMILIES, write_model
from tests.stages.model.tiny import Folder, Tiny

FROZEN = [(family, name) for family, found in read().items() for name in found]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Blueprint, Folder]]:
    """Blueprint and weights of each family."""
    made = {}
    for family in FAMILIES:
        folder = write_model(tmp_path_factory.mktemp(family), family)
        config = json.loads((folder / "config.json").read_text())
        model = Tiny(path=folder, source=Folder(folder), config=config)
        made[family] = model.blueprint(), model.source
    return made


def scheme_of(case: Case) -> SchemeConfig:
    """The case's scheme; inputs that need data are left out, for they do not touch the weights."""
    name = case.ours[0].removeprefix("scheme=")
    more = [word.removeprefix("+").removeprefix("scheme.") for word in case.ours[1:]]
    written = OmegaConf.load(own_configs() / "scheme" / f"{name}.yaml")
    merged = OmegaConf.merge(written, OmegaConf.from_dotlist(more))
    scheme: SchemeConfig = build(SchemeConfig, OmegaConf.to_container(merged))
    return dataclasses.replace(scheme, input_activations=None) if case.data else scheme


def rounded(blueprint: Blueprint, source: Folder, scheme: SchemeConfig) -> dict[str, Tensor]:
    """All tensors of the compressed layers by name."""
    resolved = resolve(scheme, blueprint).checked()
    found: dict[str, Tensor] = {}
    for subgraph in blueprint.layers:
        names = {linear.name for linear in subgraph.linears}
        state = LayerState(
            subgraph=subgraph,
            tensors=LazyTensors(subgraph.tensors, source),  # type: ignore[arg-type]  # a fake
            statistics=Statistics({}, "cpu"),
            resolved={name: made for name, made in resolved.items() if name in names},
            dtype=torch.bfloat16,
        )
        made = compress_layer(
            state, (Rtn(),), device="cpu", progress=lambda *a: None, warn=lambda *a: None
        )
        found |= made.tensors
    return found


def test_presets_and_more_are_frozen_for_both_families() -> None:
    wanted = {name for name, case in CASES.items() if "static" not in name}
    assert {family: set(found) for family, found in read().items()} == dict.fromkeys(
        FAMILIES, wanted
    )


@pytest.mark.parametrize(("family", "name"), FROZEN)
def test_the_bytes_are_those_of_llm_compressor(
    family: str, name: str, models: dict[str, tuple[Blueprint, Folder]]
) -> None:
    found = digests(rounded(*models[family], scheme_of(CASES[name])))
    assert found == read()[family][name]
