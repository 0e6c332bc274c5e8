"""Which tokens become samples."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file

from pipeline.errors import UserError
from stages.tokens import windows as module
from stages.tokens.counted import last_counted, separated
from stages.tokens.datasets.text import Text
from stages.tokens.split_text import take_part
from stages.tokens.stage import Tokens, TokensConfig
from stages.tokens.windows import (
    Candidates,
    choose,
    padded,
    stream_windows,
    window_count,
    windows,
)
from tests.stages.tokens.fakes import model_artifact, tokens_of


@given(count=st.integers(1, 300), seed=st.integers(0, 5), data=st.data())
def test_a_choice_repeats_nothing_and_contains_every_smaller_choice(count, seed, data):
    wanted = data.draw(st.integers(1, count))
    chosen = choose(count, wanted, seed)
    assert len(set(chosen)) == wanted and set(chosen) <= set(range(count))
    assert choose(count, wanted - 1, seed) == chosen[:-1]


def test_the_choice_of_a_seed_never_changes():
    assert choose(10, 4, seed=0) == [7, 4, 9, 3]
    assert choose(10, 4, seed=1) != choose(10, 4, seed=0)


@pytest.mark.parametrize("bos", [None, 7])
def test_windows_are_pieces_of_the_stream(bos):
    stream = np.arange(100, 133, dtype=np.int32)
    count = window_count(len(stream), 8, bos)
    cut = windows(stream, list(range(count)), 8, bos)
    assert cut.shape == (4, 8)
    body = cut if bos is None else cut[:, 1:]
    assert (body.reshape(-1) == stream[: body.size]).all()
    assert bos is None or (cut[:, 0] == bos).all()


def test_padding_fills_up_on_the_right():
    ids, lengths = padded([[1, 2, 3], [4]], padding=9)
    assert ids.tolist() == [[1, 2, 3], [4, 9, 9]]
    assert lengths.tolist() == [3, 1]
    assert ids.dtype == lengths.dtype == np.int32


@given(st.lists(st.text(alphabet="ab\n", max_size=12), max_size=6))
def test_the_two_halves_are_the_whole_and_share_no_line(texts):
    first, second = take_part(texts, "calibration"), take_part(texts, "held_out")
    assert "".join(first) + "".join(second) == "".join(texts)
    assert first == texts[: len(first)] or first[-1].endswith("\n")


def test_halves_are_about_equal():
    text = "\n".join(f"line {i}" for i in range(1000))
    (first,), (second,) = take_part([text], "calibration"), take_part([text], "held_out")
    assert abs(len(first) - len(second)) < 20


@given(count=st.integers(1, 400), wanted=st.integers(1, 60), seed=st.integers(0, 3))
def test_a_stream_keeps_all_that_may_be_chosen_and_little_more(count, wanted, seed):
    candidates = Candidates(iter(range(100, 100 + count)), wanted, seed)
    kept = dict(candidates)
    assert candidates.count == count
    assert set(choose(count, wanted, seed)) <= kept.keys()
    assert all(item == 100 + number for number, item in kept.items())
    assert len(kept) <= count and (count < 300 or wanted > 5 or len(kept) < 100)


@pytest.mark.parametrize("bos", [None, 7])
@given(size=st.integers(0, 90), together=st.integers(1, 40), stride=st.integers(1, 7))
def test_windows_with_a_stride_overlap(bos, size, together, stride):
    values = list(range(100, 100 + size))
    before, module.TOGETHER = module.TOGETHER, together
    try:
        pieces = [values[at : at + 5] for at in range(0, size, 5)]
        found = [window.tolist() for window in stream_windows(pieces, 8, bos, stride)]
    finally:
        module.TOGETHER = before
    start, width = ([], 8) if bos is None else ([bos], 7)
    firsts = range(0, size - width + 1, stride)
    assert found == [start + values[at : at + width] for at in firsts]


def test_only_the_last_tokens_of_an_overlapping_window_count():
    ids, counted = separated(last_counted(np.array([5, ~6, 7, 8, ~9], dtype=np.int32), 2))
    assert ids.tolist() == [5, 6, 7, 8, 9] and counted.tolist() == [0, 0, 0, 1, 0]


@pytest.mark.parametrize(
    ("given_stride", "packing", "told"),
    [(0, True, "stride is 0"), (8, True, "give 1 to 7"), (4, False, "with packing=false")],
)
def test_a_stride_that_makes_no_sense_is_refused(given_stride, packing, told):
    with pytest.raises(UserError, match=told):
        Text(path="x", sequence_length=8, stride=given_stride, packing=packing)


@pytest.mark.parametrize("bos", [None, 7])
@given(sizes=st.lists(st.integers(0, 30), max_size=12), together=st.integers(1, 40))
def test_windows_of_a_stream_are_those_of_the_whole(bos, sizes, together):
    values = np.arange(sum(sizes), dtype=np.int32) + 100
    pieces = [piece.tolist() for piece in np.split(values, np.cumsum(sizes)[:-1])] if sizes else []
    before, module.TOGETHER = module.TOGETHER, together
    try:
        found = [window.tolist() for window in stream_windows(pieces, 8, bos)]
    finally:
        module.TOGETHER = before
    whole = windows(values, range(window_count(len(values), 8, bos)), 8, bos)
    assert found == whole.tolist()


def test_a_stage_with_a_stride_says_which_tokens_count(tmp_path):
    (tmp_path / "text.txt").write_text("".join(chr(97 + i % 26) for i in range(40)))
    model = model_artifact(tmp_path / "load")
    asked = {"path": str(tmp_path / "text.txt"), "num_samples": 3, "sequence_length": 8}
    ids, lengths, _ = tokens_of(Text(**asked, stride=2), model, tmp_path / "tokens")
    counted = load_file(tmp_path / "tokens" / "tokens.safetensors")["counted"]
    assert ids.shape == (3, 8) and lengths.tolist() == [8, 8, 8] and (ids >= 0).all()
    assert counted.tolist() == [[0] * 6 + [1] * 2] * 3
    assert len(Tokens(TokensConfig(dataset=Text(**asked))).semantics(None)["fields"]) + 1 == len(
        Tokens(TokensConfig(dataset=Text(**asked, stride=2))).semantics(None)["fields"]
    )
