"""Files made to break readers: every one is read rightly or refused, and none costs memory."""

from __future__ import annotations

import json
import os
import resource
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from pipeline.errors import UserError
from stages.weights import open_checkpoint
from stages.weights.checkpoint_files import find_weights, read_headers
from stages.weights.gguf_header import read_gguf_header
from stages.weights.safetensors_file import read_header
from stages.weights.untrusted_json import read_json
from tests.fuzz import TEXTS, cases, fuzz, hostile, mutated
from tests.stages.weights.conftest import write_index
from tests.stages.weights.test_gguf_header import small_gguf

SOUND = save({"a": torch.ones(4, 4), "b": torch.ones(3, dtype=torch.bfloat16)})
edits = st.lists(
    st.tuples(st.integers(0, 400), st.binary(min_size=1, max_size=8)), min_size=1, max_size=4
)


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
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


def read_all(folder: Path) -> None:
    """Whatever is read has no more bytes than the files."""
    source = open_checkpoint(folder)
    found = source.read(source.specs())
    size = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    assert sum(tensor.nbytes for tensor in found.values()) <= size


@cases()
def test_edited_safetensors_are_read_or_refused(tmp_path: Path, cases: int) -> None:
    def check(case: tuple[list[tuple[int, bytes]], int]) -> None:
        (tmp_path / "model.safetensors").write_bytes(edited(SOUND, *case))
        try:
            read_all(tmp_path)
        except UserError:
            return

    fuzz(cases, st.tuples(edits, st.integers(0, 20)), check)


DTYPES = ["F32", "BF16", "F4", "F6_E2M3", "F8_E8M0", "BOOL", "C64", "U64", "X", ""]
SIZES = st.sampled_from([-1, 0, 1, 2, 3, 2**31, 2**62, 2**63, 2**64]) | st.integers(0, 8)


@st.composite
def headers(draw: st.DrawFn) -> bytes:
    """Headers that mostly fit their bytes, so that not only the first check is met."""
    entries: dict[str, Any] = {}
    at = 0
    for name in draw(st.lists(st.sampled_from([*TEXTS, "a", "b.weight"]), max_size=4)):
        dtype = draw(st.sampled_from(DTYPES))
        shape = draw(st.lists(SIZES, max_size=4))
        bits = {"F4": 4, "BF16": 16, "F32": 32}.get(dtype, 8)
        length = bits // 8
        for size in shape:
            length *= size
        end = draw(st.just(at + max(0, min(length, 256))) | SIZES)
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [at, end]}
        at = end
    if draw(st.booleans()):
        entries["__metadata__"] = draw(hostile)
    text = json.dumps(entries).encode()
    if draw(st.booleans()):  # the same key twice
        text = text.replace(b'"b.weight"', b'"a"')
    length = draw(st.just(len(text)) | st.sampled_from([0, 1, len(text) + 9, 10**9, 2**64 - 1]))
    return struct.pack("<Q", length) + text + bytes(draw(st.integers(0, 300)))


@cases()
def test_any_header_is_read_or_refused(tmp_path: Path, cases: int) -> None:
    file = tmp_path / "model.safetensors"

    def check(data: bytes) -> None:
        file.write_bytes(data)
        try:
            places = read_header(file).places
            read_all(tmp_path)
        except UserError:
            return
        assert all(p.start + p.length <= file.stat().st_size for p in places.values())

    fuzz(cases, headers(), check)


@pytest.mark.parametrize(
    "entry",
    [
        {"dtype": "F4", "shape": [2, 1], "data_offsets": [0, 1]},
        {"dtype": "U8", "shape": [0, 2**63], "data_offsets": [0, 0]},
        {"dtype": "U8", "shape": [0, 2**62, 2**62], "data_offsets": [0, 0]},
        {"dtype": "U8", "shape": [1] * 5000, "data_offsets": [0, 1]},
    ],
)
def test_shapes_that_no_tensor_has_are_refused(tmp_path: Path, entry: dict[str, Any]) -> None:
    text = json.dumps({"a": entry}).encode()
    file = tmp_path / "model.safetensors"
    data = bytes(entry["data_offsets"][1])
    file.write_bytes(struct.pack("<Q", len(text)) + text + data)
    with pytest.raises(UserError, match="'a'"):
        read_header(file)


def test_a_name_that_would_steer_a_terminal_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(save({"a\x1b]52;c;eA==\x07": torch.ones(2)}))
    with pytest.raises(UserError, match=r"'a\\x1b\]52;c;eA==\\x07' has control characters"):
        open_checkpoint(tmp_path).specs()


@cases()
def test_edited_gguf_headers_are_read_or_refused(tmp_path: Path, cases: int) -> None:
    small_gguf(tmp_path / "sound.gguf")
    sound, file = (tmp_path / "sound.gguf").read_bytes(), tmp_path / "edited.gguf"

    def check(case: tuple[list[tuple[int, bytes]], int]) -> None:
        file.write_bytes(edited(sound, *case))
        try:
            header = read_gguf_header(file)
        except UserError:
            return
        assert all(t.start + t.length <= header.size for t in header.tensors.values())

    fuzz(cases, st.tuples(edits, st.integers(0, 20)), check)


@cases()
def test_any_index_is_read_as_it_is_or_refused(sharded: Path, tmp_path: Path, cases: int) -> None:
    index = sharded / "model.safetensors.index.json"
    sound = json.loads(index.read_text())
    before = sorted(tmp_path.rglob("*"))

    def check(data: object) -> None:
        index.write_text(json.dumps(data))
        try:
            layout = find_weights(sharded)
            read_headers(layout)
        except UserError:
            return
        assert all(path.resolve().parent == sharded.resolve() for path in layout.files.values())
        read_all(sharded)

    fuzz(cases, mutated(sound), check)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", ["x" * 300, "\ud800", "a/" * 3000 + "b", "loop", "a\0b", "", "."])
def test_file_names_that_no_folder_can_have_are_refused(sharded: Path, name: str) -> None:
    os.symlink("loop", sharded / "loop")
    write_index(sharded, {"a": name})
    with pytest.raises(UserError):
        open_checkpoint(sharded).specs()


def test_a_link_out_of_the_folder_is_refused(sharded: Path, tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "secret.safetensors")
    (sharded / "link.safetensors").symlink_to(tmp_path / "secret.safetensors")
    write_index(sharded, {"a": "link.safetensors"})
    with pytest.raises(UserError, match="leads out of its folder"):
        open_checkpoint(sharded)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[" * 200_000, "is not JSON"),
        ('{"a": ' * 100 + "1" + "}" * 100, "is nested deeper than 64"),
        ("[1]", "holds no JSON object"),
        (f'{{"a": {"9" * 5000}}}', "is not JSON"),
        (f'{{"a": "{"x" * 2000}"}}', "has more than 2000 bytes"),
        ("", "is not JSON"),
        ("\ufffe", "is not JSON"),
    ],
)
def test_json_that_is_not_to_be_read_is_refused(tmp_path: Path, text: str, told: str) -> None:
    file = tmp_path / "x.json"
    file.write_text(text)
    longest = 2000 if "xxx" in text else 1_000_000
    with pytest.raises(UserError, match=told):
        read_json(file, longest=longest)


def test_numbers_that_json_has_not_are_read_as_transformers_writes_them(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"limit": [0.0, Infinity], "other": NaN}')
    found = read_json(tmp_path / "x.json", longest=1000)
    assert found == {"limit": [0.0, {"__float__": "Infinity"}], "other": {"__float__": "NaN"}}
    json.dumps(found, allow_nan=False)
