"""Headers made to break readers: every one is read rightly or refused, and none costs memory."""

from __future__ import annotations

import json
import resource
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from pipeline.errors import UserError
from stages.weights import open_checkpoint
from stages.weights.gguf_header import read_gguf_header
from stages.weights.safetensors_file import read_header
from tests.stages.weights.test_gguf_header import small_gguf

FUZZ = settings(
    max_examples=300,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SOUND = save({"a": torch.ones(4, 4), "b": torch.ones(3, dtype=torch.bfloat16)})
edits = st.lists(
    st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4
)


@pytest.fixture(autouse=True)
def bounded_memory() -> None:
    """No case may add more than 200 MB to the process's peak."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


def edited(data: bytes, changes: list[tuple[int, bytes]], cut: int) -> bytes:
    out = bytearray(data)
    for at, piece in changes:
        at %= len(out)
        out[at : at + len(piece)] = piece
    return bytes(out[: max(0, len(out) - cut)])


@FUZZ
@given(changes=edits, cut=st.integers(0, 20))
def test_edited_safetensors_are_read_or_refused(
    tmp_path: Path, changes: list[tuple[int, bytes]], cut: int
) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(edited(SOUND, changes, cut))
    try:
        source = open_checkpoint(tmp_path)
        found = source.read(source.specs())
    except UserError:
        return
    assert sum(tensor.nbytes for tensor in found.values()) <= file.stat().st_size


entries = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["F32", "BF16", "F4", "F6_E2M3", "F8_E8M0", "U64", "X", ""]),
        "shape": st.lists(st.integers(-1, 2**64), max_size=4),
        "data_offsets": st.lists(st.integers(-1, 2**64), max_size=3),
    }
)


@FUZZ
@given(header=st.dictionaries(st.text(max_size=5), entries | st.none() | st.integers(), max_size=4))
def test_any_json_header_is_read_or_refused(tmp_path: Path, header: dict) -> None:
    text = json.dumps(header).encode()
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", len(text)) + text + bytes(64))
    try:
        places = read_header(file).places
    except UserError:
        return
    assert all(p.start + p.length <= file.stat().st_size for p in places.values())


@FUZZ
@given(length=st.integers(0, 2**64 - 1), body=st.binary(max_size=64))
def test_any_header_length_is_read_or_refused(tmp_path: Path, length: int, body: bytes) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(struct.pack("<Q", length) + body)
    try:
        read_header(file)
    except UserError as error:
        assert str(file) in str(error)


@FUZZ
@given(changes=edits, cut=st.integers(0, 20))
def test_edited_gguf_headers_are_read_or_refused(
    tmp_path: Path, changes: list[tuple[int, bytes]], cut: int
) -> None:
    sound = tmp_path / "sound.gguf"
    if not sound.exists():
        small_gguf(sound)
    file = tmp_path / "edited.gguf"
    file.write_bytes(edited(sound.read_bytes(), changes, cut))
    try:
        header = read_gguf_header(file)
    except UserError:
        return
    assert all(t.start + t.length <= header.size for t in header.tensors.values())


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner),
    max_leaves=8,
)


@FUZZ
@given(weight_map=json_values)
def test_any_index_is_refused_where_it_is_not_true(sharded: Path, weight_map: object) -> None:
    index = sharded / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(UserError):
        open_checkpoint(sharded).specs()


def test_deeply_nested_json_is_refused(sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text("[" * 200_000)
    with pytest.raises(UserError):
        open_checkpoint(sharded)
