"""Token ids as a dataset: taken as they are, without a tokenizer, and checked."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import UserError
from pipeline.key import canonical
from stages.tokens.datasets.json_rows import JsonRows
from tests.stages.tokens.fakes import FakeArtifact, tokens_of

IDS = [[5, 6, 7, 8], [9, 10], [1, 2, 3]]


@pytest.fixture
def bare(tmp_path: Path) -> FakeArtifact:
    """A model without a tokenizer."""
    (tmp_path / "load" / "model").mkdir(parents=True)
    (tmp_path / "load" / "model" / "config.json").write_text('{"vocab_size": 12}')
    return FakeArtifact(tmp_path / "load")


def rows(path: Path, ids: list[Any], **options: Any) -> JsonRows:
    path.write_text("".join(json.dumps({"input_ids": each}) + "\n" for each in ids))
    return JsonRows(path=str(path), ids_column="input_ids", **options)


def test_each_row_is_a_sample_cut_or_padded(tmp_path: Path, bare: FakeArtifact) -> None:
    dataset = rows(tmp_path / "ids.jsonl", IDS, num_samples=3, sequence_length=3, packing=False)
    ids, lengths, _ = tokens_of(dataset, bare, tmp_path / "made")
    assert sorted(map(tuple, ids.tolist())) == [(1, 2, 3), (5, 6, 7), (9, 10, 0)]
    assert sorted(lengths.tolist()) == [2, 3, 3]


def test_rows_can_form_one_stream(tmp_path: Path, bare: FakeArtifact) -> None:
    dataset = rows(tmp_path / "ids.jsonl", IDS, num_samples=2, sequence_length=4)
    ids, _, _ = tokens_of(dataset, bare, tmp_path / "made")
    assert ids.tolist() == [[5, 6, 7, 8], [9, 10, 1, 2]]


@pytest.mark.parametrize(
    ("ids", "told"),
    [
        ([["a"]], "holds no token ids"),
        ([[-1]], "holds no token ids"),
        ([[1.5]], "holds no token ids"),
        ([[1, 12]], "id 12 is in the dataset, but the model has a vocabulary of 12"),
    ],
)
def test_what_is_no_id_of_the_model_is_refused(
    tmp_path: Path, bare: FakeArtifact, ids: list[Any], told: str
) -> None:
    dataset = rows(tmp_path / "x.jsonl", ids, num_samples=1, sequence_length=2, packing=False)
    with pytest.raises(UserError, match=told):
        tokens_of(dataset, bare, tmp_path / "made")


def test_ids_and_conversations_are_not_both(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name one of them"):
        rows(tmp_path / "x.jsonl", IDS, messages_column="messages")


def test_keys_of_datasets_without_ids_are_what_they_were(tmp_path: Path) -> None:
    assert "ids_column" not in str(canonical(JsonRows(path=str(tmp_path / "x.jsonl"))))
