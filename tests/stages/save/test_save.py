"""A saved folder: linked shards, everything a loader reads beside them, and an honest record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from stages.compress.modifiers import Gptq, SmoothQuant
from stages.save import shards
from stages.weights import open_checkpoint
from tests.stages.compress.layers import source_artifact
from tests.stages.model.tiny import Tiny, tiny
from tests.stages.save.checkpoints import WIDE, Saved, save
from tests.stages.schemes.presets import load


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    return tiny("llama", tmp_path_factory.mktemp("llama"), dtype=torch.bfloat16, **WIDE)


@pytest.fixture(scope="module")
def saved(model: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Saved:
    return saved_with_small_files(model, tmp_path_factory.mktemp("saved"))


def saved_with_small_files(model: Tiny, folder: Path) -> Saved:
    small = source_artifact(model, folder / "load").path / "model"
    (small / "tokenizer.json").write_text("{}")
    (small / "custom").mkdir()
    (small / "custom" / "modeling.py").write_text("x = 1\n")
    return save(model, load("w8a8"), folder, (SmoothQuant(), Gptq(descent=1)), max_shard_bytes=None)


def test_layer_shards_are_links_to_the_store(saved: Saved) -> None:
    for number, layer in enumerate(saved.layers.artifacts, start=2):
        file = saved.folder / f"model-{number:05d}-of-00003.safetensors"
        assert file.samefile(layer.path / "shard.safetensors")


def test_the_index_puts_every_tensor_where_it_is(saved: Saved) -> None:
    index = json.loads((saved.folder / shards.INDEX).read_text())
    for name, file in index["weight_map"].items():
        assert name in load_file(saved.folder / file)
    specs = open_checkpoint(saved.folder).specs().values()
    assert index["metadata"]["total_size"] == sum(spec.bytes for spec in specs)


def test_the_config_keeps_every_field_of_the_original(saved: Saved, model: Tiny) -> None:
    config = json.loads((saved.folder / "config.json").read_text())
    assert {name: config[name] for name in model.config} == model.config
    assert set(config) - set(model.config) == {"quantization_config"}


def test_the_models_own_files_come_along(saved: Saved) -> None:
    assert (saved.folder / "tokenizer.json").read_text() == "{}"
    assert (saved.folder / "custom" / "modeling.py").read_text() == "x = 1\n"
    assert (saved.folder / "generation_config.json").is_file()


def test_the_recipe_is_plain_yaml_with_every_modifier_in_order(saved: Saved) -> None:
    recipe = yaml.safe_load((saved.folder / "recipe.yaml").read_text())
    assert [modifier["kind"] for modifier in recipe["modifiers"]] == ["smoothquant", "gptq"]
    assert recipe["modifiers"][1]["descent"] == 1
    assert recipe["scheme"]["weights"]["num_bits"] == 8
    assert recipe["scheme"]["input_activations"]["dynamic"] is True
    assert recipe["calibration"] == {"statistics": ["absmax", "gram"], "tokens": 256}


def test_sizes_are_those_of_the_files(saved: Saved, model: Tiny) -> None:
    size = saved.result["size"]
    assert size["original_bytes"] == sum(t.nbytes for t in model.source.tensors.values())
    stored = sum(
        t.nbytes for path in saved.folder.glob("*.safetensors") for t in load_file(path).values()
    )
    assert size["compressed_bytes"] == stored
    parameters = sum(t.numel() for t in model.source.tensors.values())
    assert size["whole_bits_per_weight"] == pytest.approx(8 * stored / parameters)
    assert 8.0 < size["bits_per_weight"] < size["whole_bits_per_weight"]  # a scale for each row


def test_the_card_and_the_provenance_say_what_and_from_where(saved: Saved) -> None:
    card = (saved.folder / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert front["library_name"] == "transformers"
    assert "W8A8 channel | 14" in card
    assert "kind: smoothquant" in card
    provenance = json.loads((saved.folder / "provenance.json").read_text())
    assert len(provenance["keys"]["compress"]) == 2


def test_no_path_of_this_machine_is_in_the_folder(saved: Saved) -> None:
    for name in ("config.json", "recipe.yaml", "provenance.json", "README.md", shards.INDEX):
        assert str(Path(saved.folder).parents[1]) not in (saved.folder / name).read_text()


def test_saving_again_gives_the_same_bytes(saved: Saved, model: Tiny, tmp_path: Path) -> None:
    again = saved_with_small_files(model, tmp_path)
    for path in again.folder.iterdir():
        if path.is_file():
            assert path.read_bytes() == (saved.folder / path.name).read_bytes(), path.name


def test_tensors_outside_the_layers_are_split_by_size(
    model: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 1000)
    split = save(model, load("w4a16"), tmp_path, max_shard_bytes=None)
    files = sorted(path.name for path in split.folder.glob("*.safetensors"))
    assert len(files) == 2 + 3  # embedding, norm and head do not fit together
    assert files[-1] == "model-00005-of-00005.safetensors"


def test_a_file_system_without_links_gets_copies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError("no links here")

    monkeypatch.setattr("os.link", refuse)
    (tmp_path / "a").write_bytes(b"abc")
    shards.link(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"abc"
