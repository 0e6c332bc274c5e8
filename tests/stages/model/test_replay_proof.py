"""Proof of the replay: models of many kinds pass, and a replay that loses something does not."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import CONFIG_MAPPING

from pipeline.errors import StageFailed
from stages.model import replay as replaying
from stages.model.artifact_names import HIDDEN
from stages.model.boundary import EMBEDDING, Boundary, batch_dim
from stages.model.forward.off_meta import OffMeta
from stages.model.proofs.replay_proof import prove
from tests.families.drive import CASES
from tests.families.tiny import config_of

GEMMA4: dict[str, Any] = {
    "model_type": "gemma4_text",
    "num_hidden_layers": 6,
    "num_kv_shared_layers": 2,
    "layer_types": ["sliding_attention", "full_attention"] * 3,
}
LLAMA = {"model_type": "llama", "num_hidden_layers": 4}


def config(model_type: str, **changes: Any) -> dict[str, Any]:
    return {**CONFIG_MAPPING[model_type]().to_dict(), **changes, "model_type": model_type}


@pytest.mark.parametrize(
    ("model_type", "changes", "handed_on", "embedding"),
    [
        ("llama", {}, {"hidden": (3, 29, 64)}, False),
        ("zamba2", {}, {"hidden": (3, 29, 64)}, True),
        ("opt", {"word_embed_proj_dim": 512}, {"hidden": (3, 29, 64)}, False),
        ("falcon", {"new_decoder_architecture": True}, {"hidden": (3, 29, 64)}, False),
        ("bloom", {"num_attention_heads": 8}, {"hidden": (3, 29, 64)}, False),
        ("falcon_h1", {}, {"hidden": (3, 29, 64)}, False),
        ("mamba2", {}, {"hidden": (3, 29, 32)}, False),
        ("qwen3_moe", {}, {"hidden": (3, 29, 64)}, False),
        ("llama4_text", {}, {"hidden": (3, 29, 64)}, False),
        # what runs before the lm_head: a scale in the model's forward, a dense layer and a norm
        ("minicpm3", {}, {"hidden": (3, 29, 64)}, False),
        ("modernbert-decoder", {}, {"hidden": (3, 29, 64)}, True),
    ],
)
def test_a_model_of_every_kind_is_proven(
    model_type: str, changes: dict[str, Any], handed_on: dict[str, Any], embedding: bool
) -> None:
    found = prove(config(model_type, **changes))["replay"]
    assert found["equal"] == "bits"
    assert found["embedding_read"] is embedding
    assert {n: tuple(s[:2]) for n, s in found["hands_on"].items() if n != EMBEDDING} == {
        name: shape[:2] for name, shape in handed_on.items()
    }


@pytest.mark.parametrize(
    "name",
    [
        "hy_v4",  # keeps some parameters in float32
        "zaya",  # a hidden state in float32, rotary tables in the dtype of the embeddings
        "idefics3",  # moves embeddings to the device of its first parameter, which is not there
        "deepseek_v4",  # cannot run in bfloat16 itself: proven in float32
        "gemma4",  # puts the row of its padding where images are, by the embedding's weight
    ],
)
def test_a_model_in_bfloat16_is_proven_whatever_lies_on_the_meta_device(name: str) -> None:
    small = config_of(next(case for case in CASES if case.name == name))
    small.dtype = torch.bfloat16
    found = prove(json.loads(small.to_json_string(use_diff=False)))["replay"]
    assert (found["equal"], found["layers_of_model"]) == ("bits", 4)


def test_nothing_real_gets_to_the_meta_device() -> None:
    real, meta = torch.ones(2), torch.ones(2, device="meta")
    with OffMeta(torch.device("cpu")):
        moved = real.to(torch.device("meta")), real.to(device="meta", dtype=torch.float16)
        made = torch.zeros(3, device=meta.device)
        kept = meta.to("meta"), meta + 1
    assert torch.equal(moved[0], real) and torch.equal(moved[1], real.half())
    assert torch.equal(made, torch.zeros(3))
    assert all(tensor.is_meta for tensor in kept)


def test_gemma_4_hands_on_keys_values_and_embeddings() -> None:
    found = prove(GEMMA4)["replay"]
    shapes = [len(shape) for name, shape in found["hands_on"].items() if name != EMBEDDING]
    assert shapes == [3, 4, 4, 4, 4]  # hidden state, keys and values of two kinds of layers
    assert found["embedding_read"]


def test_with_zeros_for_embeddings_gemma_4_is_not_proven(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_but_embedding(*args: Any) -> set[str]:
        return set(args[2].tensors) - {EMBEDDING}

    monkeypatch.setattr(replaying, "_read_later", all_but_embedding)
    with pytest.raises(StageFailed, match=r"model\.layers\.1 \(Gemma4TextDecoderLayer\) hands on"):
        prove(GEMMA4)


def changed(before: Callable[..., Boundary], index: int) -> Callable[..., Boundary]:
    def replay(skeleton: Any, at: int, *args: Any, **kwargs: Any) -> Boundary:
        result = before(skeleton, at, *args, **kwargs)
        return result.mapped(lambda x: x.nextafter(x + 1)) if at == index else result

    return replay


def test_one_bit_is_found_and_its_layer_named(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = changed(replaying.replay, 1)
    monkeypatch.setattr("stages.model.proofs.replay_proof.replay", wrong)
    with pytest.raises(StageFailed, match=r"model\.layers\.1 \(LlamaDecoderLayer\)") as raised:
        prove(LLAMA)
    assert "graph=data_free" in raised.value.remedy


def test_entries_that_are_lost_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    before = replaying.replay

    def without(*args: Any, **kwargs: Any) -> Boundary:
        result = before(*args, **kwargs)
        tensors = {name: result.tensors[name] for name in (HIDDEN, EMBEDDING)}
        return Boundary(tensors=tensors, returned=result.returned)

    monkeypatch.setattr("stages.model.proofs.replay_proof.replay", without)
    with pytest.raises(StageFailed, match="fails: KeyError"):
        prove(GEMMA4)


@pytest.mark.parametrize(
    ("shape", "dim"),
    [((3, 29, 8), 0), ((4, 3, 29, 8), 1), ((3, 2, 29, 8), 0), ((29, 3, 8), 1), ((5,), None)],
)
def test_the_batch_dimension_is_found(shape: tuple[int, ...], dim: int | None) -> None:
    assert batch_dim(torch.Size(shape), torch.Size((3, 29))) == dim


def test_rows_of_a_boundary_are_those_of_every_tensor() -> None:
    ids, wide = torch.zeros(3, 5), torch.arange(4 * 3 * 5 * 2.0).reshape(4, 3, 5, 2)
    keys = torch.arange(3 * 2 * 5.0).reshape(3, 2, 5)
    boundary = Boundary.of((wide, None), {("kv", 1): (keys, keys)}, wide[0], torch.float32)
    rows = [boundary.row(index, ids) for index in range(3)]
    assert torch.equal(rows[1].hidden, wide[:, 1:2])
    assert torch.equal(next(rows[2].entries())[2][0], keys[2:])
    stored = Boundary.from_stored(boundary.stored())
    assert same(stored.value()[0], wide)
    assert stored.value()[1] is None
    assert [(place, key) for place, key, _ in stored.entries()] == [("kv", 1)]
    assert same(stored.embedding, wide[0])


def same(one: Tensor | None, other: Tensor) -> bool:
    return one is not None and torch.equal(one, other)
