"""The stage `tokens`: samples, keys and what it says when a dataset does not suffice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file

from pipeline.errors import UserError
from pipeline.key import digest
from stages.tokens.datasets.json_rows import JsonRows
from stages.tokens.datasets.pydoc import Pydoc
from stages.tokens.datasets.text import Text
from stages.tokens.stage import Tokens, TokensConfig
from tests.stages.tokens.fakes import (
    TEMPLATE,
    FakeArtifact,
    byte_tokenizer,
    model_artifact,
    tokens_of,
)

TEXT = " ".join(str(number) for number in range(1000, 1600))


def write(path, text=TEXT):
    path.write_text(text)
    return str(path)


def key(dataset):
    return digest(Tokens(TokensConfig(dataset=dataset)).semantics(None))


def test_packed_samples_are_windows_of_the_text(tmp_path, model):
    path = write(tmp_path / "a.txt")
    ids, lengths, meta = tokens_of(
        Text(path=path, num_samples=8, sequence_length=32), model, tmp_path / "out"
    )
    assert ids.shape == (8, 32) and ids.dtype == np.int32 and (lengths == 32).all()
    texts = byte_tokenizer().batch_decode(ids)
    assert len(set(texts)) == 8
    assert all((TEXT + "\n\n").index(text) % 32 == 0 for text in texts)
    assert meta == {"samples": 8, "tokens": 256, "dataset": "text a.txt"}


def test_the_same_seed_gives_the_same_bytes_and_another_does_not(tmp_path, model):
    path = write(tmp_path / "a.txt")

    def content(name, seed):
        dataset = Text(path=path, num_samples=8, sequence_length=32, seed=seed)
        tokens_of(dataset, model, tmp_path / name)
        return (tmp_path / name / "tokens.safetensors").read_bytes()

    assert content("a", 0) == content("b", 0) != content("c", 1)


def test_windows_begin_as_the_tokenizer_begins_a_text(tmp_path):
    model = model_artifact(tmp_path / "load", bos=True)
    ids, _, _ = tokens_of(
        Text(path=write(tmp_path / "a.txt"), num_samples=4, sequence_length=32),
        model,
        tmp_path / "out",
    )
    assert ids.shape == (4, 32)
    assert (ids[:, 0] == 0).all() and (ids[:, 1:] != 0).all()


def test_without_packing_a_sample_is_a_padded_document(tmp_path, model):
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "abc"}\n{"text": "abcdefgh"}\n{"text": " "}\n')
    dataset = JsonRows(path=str(path), num_samples=2, sequence_length=6, packing=False)
    ids, lengths, meta = tokens_of(dataset, model, tmp_path / "out")
    by_length = dict(zip(lengths.tolist(), ids.tolist(), strict=True))
    expected = byte_tokenizer()(["abc", "abcdef"]).input_ids
    assert by_length == {3: [*expected[0], 2, 2, 2], 6: expected[1]}
    assert meta["tokens"] == 9


@pytest.mark.parametrize("packing", [False, True])
def test_conversations_go_through_the_chat_template(tmp_path, packing):
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"messages": [{"role": "user", "content": "hello"}]}) + "\n")
    dataset = JsonRows(
        path=str(path),
        messages_column="messages",
        num_samples=1,
        sequence_length=11,
        packing=packing,
    )
    model = model_artifact(tmp_path / "load", template=TEMPLATE)
    ids, _, _ = tokens_of(dataset, model, tmp_path / "out")
    assert byte_tokenizer().decode(ids[0]) == "<user>hello"
    plain = model_artifact(tmp_path / "plain")
    with pytest.raises(UserError, match="no chat template"):
        tokens_of(dataset, plain, tmp_path / "out2")


def test_too_little_text_says_how_much_there_is(tmp_path, model):
    path = write(tmp_path / "a.txt", "x" * 98)
    dataset = Text(path=path, num_samples=16, sequence_length=32)
    with pytest.raises(UserError, match=r"3 samples of 32[^$]*num_samples=3 at most"):
        tokens_of(dataset, model, tmp_path / "out")
    dataset = Text(path=path, num_samples=2, sequence_length=32, packing=False)
    with pytest.raises(UserError, match=r"has 1 documents[^$]*num_samples=1 at most"):
        tokens_of(dataset, model, tmp_path / "out")


@pytest.mark.parametrize("packing", [False, True])
def test_an_empty_dataset_is_an_error(tmp_path, model, packing):
    dataset = Text(path=write(tmp_path / "a.txt", " \n"), packing=packing)
    with pytest.raises(UserError, match="holds no text"):
        tokens_of(dataset, model, tmp_path / "out")


def test_a_model_without_tokenizer_is_an_error(tmp_path):
    (tmp_path / "model").mkdir()
    with pytest.raises(UserError, match="without a tokenizer"):
        tokens_of(Pydoc(), FakeArtifact(tmp_path), tmp_path / "out")


def test_a_file_that_appears_after_hashing_is_not_read(tmp_path, model, monkeypatch):
    folder = tmp_path / "texts"
    folder.mkdir()
    write(folder / "b.txt")
    dataset = Text(path=str(folder), num_samples=8, sequence_length=32)
    (before, *_) = tokens_of(dataset, model, tmp_path / "out")
    identity = Tokens._identity

    def disturbed(stage):
        found = identity(stage)
        write(folder / "a.txt", "other " * 500)
        return found

    stage = replace(Tokens(TokensConfig(dataset=dataset)), content=dataset.identity())
    monkeypatch.setattr(Tokens, "_identity", disturbed)
    (after, *_) = tokens_of(dataset, model, tmp_path / "again", stage=stage)
    assert (before == after).all() and (folder / "a.txt").exists()


def test_a_pipe_or_a_broken_link_among_texts_is_an_error(tmp_path):
    write(tmp_path / "b.txt")
    os.mkfifo(tmp_path / "a.txt")
    (tmp_path / "c.txt").symlink_to("gone.txt")
    for path, first in ((".", "a"), ("a.txt", "a"), ("*.txt", "a"), ("c*", "c")):
        dataset = Text(path=str(tmp_path / path), num_samples=8, sequence_length=32)
        with pytest.raises(UserError, match=rf"{first}\.txt is no plain file, or a link"):
            dataset.files()


def test_a_missing_path_is_found_before_anything_runs(tmp_path):
    dataset = Text(path=str(tmp_path / "nowhere.txt"))
    survey = Tokens(TokensConfig(dataset=dataset)).survey(None)
    assert [("nowhere.txt does not exist" in str(p)) for p in survey.problems] == [True]


def test_the_key_follows_the_content_and_not_the_place(tmp_path):
    first = key(Text(path=write(tmp_path / "a.txt", "one")))
    assert key(Text(path=write(tmp_path / "b.txt", "one"))) == first
    assert key(Text(path=write(tmp_path / "b.txt", "two"))) != first
    assert key(JsonRows(path=write(tmp_path / "c.json", "one"))) != first


@pytest.mark.parametrize(
    "change", [{"num_samples": 5}, {"sequence_length": 9}, {"seed": 1}, {"packing": False}]
)
def test_every_field_that_matters_is_in_the_key(change):
    assert key(Pydoc(**change)) != key(Pydoc())


def test_pydoc_and_text_do_not_import_the_datasets_library(tmp_path):
    program = (
        "import sys, types\n"
        "from pathlib import Path\n"
        "from stages.tokens.datasets import pydoc, text, json_rows, parquet, hub\n"
        "from stages.tokens import stage\n"
        "s = stage.Tokens(stage.TokensConfig(dataset=pydoc.Pydoc()))\n"
        "s.survey(types.SimpleNamespace(facts={})); s.semantics(None)\n"
        "heavy = {'torch', 'transformers', 'datasets', 'huggingface_hub'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "list(pydoc.Pydoc().documents(Path('.')))\n"
        f"list(text.Text(path={write(tmp_path / 'a.txt')!r}).documents(Path('.')))\n"
        "assert 'datasets' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_default_dataset_has_enough_text_for_128_samples_a_half(tmp_path, model):
    for part in ("calibration", "held_out"):
        dataset = Pydoc(part=part, num_samples=128, sequence_length=512)
        ids, _, _ = tokens_of(dataset, model, tmp_path / part)
        assert ids.shape == (128, 512)
    first, second = (
        {row.tobytes() for row in load_file(tmp_path / p / "tokens.safetensors")["input_ids"]}
        for p in ("calibration", "held_out")
    )
    assert not first & second
