from __future__ import annotations

import struct
from pathlib import Path

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Q

from pipeline.errors import UserError
from stages.weights.gguf_header import read_gguf_header


def small_gguf(path: Path) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("small")
    writer.add_uint32("llama.vocab_size", 4)
    writer.add_token_list(["a", "b", "c", "d"])
    writer.add_array("some.floats", [1.0, 2.0])
    make = np.random.default_rng(0)
    for name, stored in {"x": Q.Q8_0, "y": Q.Q4_1, "z": Q.F32, "w": Q.F16}.items():
        data = gguf.quantize(make.standard_normal((3, 64), dtype=np.float32), stored)
        writer.add_tensor(f"{name}.weight", data, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_tensors_lie_where_the_gguf_package_finds_them(tmp_path: Path) -> None:
    small_gguf(tmp_path / "x.gguf")
    found = read_gguf_header(tmp_path / "x.gguf")
    expected = gguf.GGUFReader(tmp_path / "x.gguf")
    assert found.architecture == "llama"
    assert [(t.name, t.shape, t.type, t.start, t.length) for t in found.tensors.values()] == [
        (t.name, tuple(reversed(t.shape.tolist())), t.tensor_type.name, t.data_offset, t.n_bytes)
        for t in expected.tensors
    ]
    assert set(found.spans) == {key for key in expected.fields if not key.startswith("GGUF.")}


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    small_gguf(tmp_path / "x.gguf")
    with open(tmp_path / "x.gguf", "r+b") as out:
        out.truncate(out.seek(0, 2) - 64)
    with pytest.raises(UserError, match="ends at byte"):
        read_gguf_header(tmp_path / "x.gguf")


def array_of(kind: int, count: int) -> bytes:
    key = struct.pack("<Q", 1) + b"k"
    return key + struct.pack("<IIQ", 9, kind, count) + bytes(64)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"GGML" + bytes(40), "does not begin"),
        (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "announces"),
        (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "announces"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + array_of(8, 2**62), "arrays of"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + array_of(9, 1), "values of type 9"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + array_of(0, 1000), "cut off"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + struct.pack("<Q", 2**63), "a name has"),
        (b"GGUF" + struct.pack("<IQQ", 3, 0, 0), "its architecture"),
        (b"GGUF", "cut off"),
    ],
)
def test_a_header_that_lies_is_refused_with_the_reason(
    tmp_path: Path, body: bytes, why: str
) -> None:
    (tmp_path / "x.gguf").write_bytes(body)
    with pytest.raises(UserError, match=why):
        read_gguf_header(tmp_path / "x.gguf")


def test_a_missing_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        read_gguf_header(tmp_path / "x.gguf")
