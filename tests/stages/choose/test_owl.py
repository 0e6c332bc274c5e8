"""Outliers of decoder layers: the share of |W| |X| above M times the mean of a layer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.errors import StageFailed
from pipeline.stage import Task
from stages.calibrate.statistics.squares import Squares
from stages.choose.owl import Owl, OwlConfig
from stages.choose.owl_run import outlier_ratio
from stages.compress.modifiers import Gptq, Wanda
from tests.stages.compress.layers import inputs_of, model_artifact, source_artifact, statistics
from tests.stages.formats.fakes import FakeArtifact
from tests.stages.model.tiny import tiny

ASKED = (Wanda(sparsity_profile="owl", owl_m=3.0), Gptq())


def task(tmp_path: Path, inputs: dict[str, Any]) -> Task:
    (tmp_path / "out").mkdir()
    return Task(
        node_name="owl",
        member=None,
        index=None,
        inputs=inputs,
        outputs={"out": FakeArtifact(path=tmp_path / "out")},
        scratch=tmp_path,
        progress=lambda fraction, text: None,
        warn=lambda text: None,
        resource=lambda name, make: make(),
    )


def test_outliers_are_those_of_all_the_linears_of_a_layer(tmp_path: Path) -> None:
    model = tiny("llama", tmp_path / "model", num_hidden_layers=2)
    blueprint = model.blueprint()
    inputs: dict[str, Any] = {
        "source": source_artifact(model, tmp_path / "load"),
        "model": model_artifact(blueprint, tmp_path / "patch"),
    }
    wanted = {}
    for index, layer in enumerate(blueprint.layers):
        found = statistics(layer, tmp_path / "statistics", ("squares",))
        inputs[f"statistics/{index}"] = found["squares"]
        rows, leaders = inputs_of(layer, seed=index)
        scores = torch.cat(
            [
                (model.source.tensors[f"{x.name}.weight"].abs() * rows[leaders[x.name]].norm(dim=0))
                .flatten()
                .double()
                for x in layer.linears
            ]
        )
        wanted[layer.name] = float((scores > 3 * scores.mean()).double().mean())
    Owl(OwlConfig(modifiers=ASKED)).run(task(tmp_path, inputs))
    made = json.loads((tmp_path / "out" / "outliers.json").read_text())
    assert made["owl_m"] == 3.0
    assert made["layers"] == pytest.approx(wanted, abs=1e-4) and min(wanted.values()) > 0.01


def test_layers_of_which_nothing_is_known_are_named(tmp_path: Path) -> None:
    model = tiny("llama", tmp_path / "model", num_hidden_layers=1)
    blueprint = model.blueprint()

    def spoil(found: dict[str, torch.Tensor]) -> None:
        next(iter(found.values())).fill_(torch.inf)

    [layer] = blueprint.layers
    found = statistics(layer, tmp_path / "statistics", ("squares",), edit=spoil)
    inputs: dict[str, Any] = {
        "source": source_artifact(model, tmp_path / "load"),
        "model": model_artifact(blueprint, tmp_path / "patch"),
        "statistics/0": found["squares"],
    }
    with pytest.raises(StageFailed, match=r"model\.layers\.0"):
        Owl(OwlConfig(modifiers=ASKED)).run(task(tmp_path, inputs))
    assert not outlier_ratio([], 5.0) >= 0


def test_only_what_decides_outliers_is_in_the_key() -> None:
    def key(*modifiers: Any) -> Any:
        return Owl(OwlConfig(modifiers=modifiers)).semantics(None)

    assert key(*ASKED) == key(Wanda(sparsity=0.7, sparsity_profile="owl", owl_m=3.0))
    assert key(*ASKED) != key(Wanda(sparsity_profile="owl"))
    assert OwlConfig(modifiers=(Wanda(),)).owl_m is None


def test_squares_do_not_depend_on_how_rows_are_split() -> None:
    x = torch.randn(50, 8)
    state = Squares.init(8, "cpu")
    for part in x.split(17):
        state = Squares.update(state, part)
    one, other = (Squares.update(Squares.init(8, "cpu"), part) for part in x.split(25))
    wanted = x.double().square().sum(dim=0).float()
    torch.testing.assert_close(Squares.finish(state), wanted)
    torch.testing.assert_close(Squares.finish(Squares.merge(one, other)), wanted)
