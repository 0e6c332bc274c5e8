"""Filling a skeleton and emptying it again."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.errors import StageFailed, UserError
from stages.model.layer_tensors import layer_tensors
from tests.stages.model.tiny import FAMILIES, tiny


@pytest.mark.parametrize("family", ["llama", "gemma3_text", "phi3"])
def test_computed_buffers_equal_those_of_a_loaded_model(family: str, tmp_path: Path) -> None:
    model = tiny(family, tmp_path)
    mine = dict(model.skeleton().model.named_buffers())
    theirs = dict(model.original().named_buffers())
    assert mine.keys() == theirs.keys() and mine
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_skeleton_has_no_weights(family: str, tmp_path: Path) -> None:
    model = tiny(family, tmp_path).skeleton().model
    assert all(parameter.is_meta for parameter in model.parameters())


def test_weights_are_there_only_within_the_context(tmp_path: Path) -> None:
    model = tiny("llama", tmp_path)
    bones = model.skeleton()
    layer = bones.blueprint.layers[1]
    name = "model.layers.1.mlp.up_proj.weight"
    with bones.materialized(layer_tensors(layer, model.source)):
        assert torch.equal(bones.model.get_parameter(name), model.source.tensors[name])
        assert bones.model.get_parameter("model.layers.2.mlp.up_proj.weight").is_meta
    assert bones.model.get_parameter(name).is_meta


def test_they_are_gone_after_an_error_too(tmp_path: Path) -> None:
    model = tiny("llama", tmp_path)
    bones = model.skeleton()
    tensors = layer_tensors(bones.blueprint.layers[0], model.source)
    with pytest.raises(ZeroDivisionError), bones.materialized(tensors):
        raise ZeroDivisionError
    tensors["model.layers.0.mlp.up_proj.weight"] = torch.zeros(3, 3)
    with pytest.raises(StageFailed, match=r"up_proj\.weight is \[3, 3\]"):
        with bones.materialized(tensors):
            pass
    assert all(parameter.is_meta for parameter in bones.model.parameters())


def test_a_parameter_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    bones = tiny("llama", tmp_path).skeleton()
    with pytest.raises(UserError, match="no parameter"):
        with bones.materialized({"model.layers.0.mlp.gone": torch.zeros(1)}):
            pass


def test_unpatching_puts_the_containers_back(tmp_path: Path) -> None:
    bones = tiny("mixtral", tmp_path).skeleton()
    assert type(bones.model.get_submodule("model.layers.0.mlp.experts")).__name__ == "LinearExperts"
    bones.unpatch()
    assert type(bones.model.get_submodule("model.layers.0.mlp.experts")).__name__ == (
        "MixtralExperts"
    )
