"""Mistakes of a user: one clear error each, and a store that stays whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.errors import UserError
from pipeline.store import Store, StoreConfig
from tests.jobs import Job, built


@pytest.fixture
def job(tmp_path: Path, tiny_llama: Path, some_text: Path) -> Job:
    model = tmp_path / "model"
    shutil.copytree(tiny_llama, model)
    return Job(folder=tmp_path, model=model, text=some_text)


def refused(job: Job, *more: str) -> str:
    """The message of a run that is refused; nothing in the store is damaged by it."""
    with pytest.raises(UserError) as caught:
        job.run("run", *more)
    assert Store(StoreConfig(dir=str(job.folder / "store"))).verify() == []
    return str(caught.value)


def test_a_group_size_that_does_not_divide_names_the_layers_and_what_would(job: Job) -> None:
    text = refused(job, "scheme.weights.group_size=48")
    assert "48" in text and "down_proj" in text and "q_proj" in text
    assert "32" in text and "64" in text


def test_a_target_that_matches_nothing(job: Job) -> None:
    assert "Linaer" in refused(job, "scheme.targets=[Linaer]")


@pytest.mark.parametrize("word", ["scheme.weights.group_sise=32", "+scheme.weights.group_sise=32"])
def test_an_unknown_key_is_refused_with_the_one_that_was_meant(job: Job, word: str) -> None:
    from hydra.errors import HydraException

    with pytest.raises((UserError, HydraException), match="group_sise"):
        job.run("run", word)


def test_a_truncated_file(job: Job) -> None:
    path = job.model / "model-layer-002.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    assert path.name in refused(job)


def test_a_missing_file(job: Job) -> None:
    (job.model / "model-layer-002.safetensors").unlink()
    assert "model-layer-002.safetensors" in refused(job)


def test_an_index_that_points_outside(job: Job) -> None:
    index = job.model / "model.safetensors.index.json"
    data = json.loads(index.read_text())
    data["weight_map"]["model.norm.weight"] = "../../etc/passwd.safetensors"
    index.write_text(json.dumps(data))
    assert "../../etc/passwd.safetensors" in refused(job)


def test_an_empty_dataset(job: Job) -> None:
    empty = job.folder / "empty.txt"
    empty.touch()
    assert "empty.txt" in refused(job, f"dataset.path={empty}")


def test_too_few_samples(job: Job) -> None:
    assert "100000" in refused(job, "dataset.num_samples=100000")


def test_a_model_folder_that_is_not_there(job: Job) -> None:
    assert "/no/such" in refused(job, "model.path=/no/such")


def test_a_corrupt_artifact_is_put_aside_and_built_again(job: Job) -> None:
    job.run("one")
    good = job.checkpoint("one")
    (shard,) = (job.folder / "store").glob("??/*/checkpoint/model.safetensors")
    data = bytearray(shard.read_bytes())
    data[-1] ^= 1
    shard.unlink()
    shard.write_bytes(bytes(data))
    result = job.run("two")
    assert "save" in built(result)
    assert job.checkpoint("two") == good
