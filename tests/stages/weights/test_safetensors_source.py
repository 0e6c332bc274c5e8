from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from pipeline.errors import UserError
from pipeline.outside import FileChanged, PinnedFile, state_of
from stages.weights import open_checkpoint
from stages.weights.checkpoint_files import find_weights
from stages.weights.hashes import sha256_of
from stages.weights.safetensors_file import Scratch
from stages.weights.safetensors_source import SafetensorsSource

DTYPES = [
    torch.float32, torch.float16, torch.bfloat16, torch.float64, torch.int8, torch.uint8,
    torch.int32, torch.int64, torch.bool, torch.float8_e4m3fn, torch.float8_e5m2,
    torch.float8_e8m0fnu,
]  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_dtype_is_read_as_safetensors_reads_it(tmp_path: Path, dtype: torch.dtype) -> None:
    data = torch.randint(0, 2, (3, 5, 8), dtype=torch.uint8).to(dtype)
    save_file({"x": data}, tmp_path / "model.safetensors")
    found = open_checkpoint(tmp_path).read(["x"])["x"]
    expected = load_file(tmp_path / "model.safetensors")["x"]
    assert found.dtype == expected.dtype and found.shape == expected.shape
    assert torch.equal(found.view(torch.uint8), expected.view(torch.uint8))


def test_scalars_and_empty_tensors_are_read(tmp_path: Path) -> None:
    given = {"scalar": torch.tensor(3.0), "empty": torch.empty(0, 4), "x": torch.ones(2)}
    save_file(given, tmp_path / "model.safetensors")
    found = open_checkpoint(tmp_path).read(given)
    assert all(torch.equal(found[name], given[name]) for name in given)


def test_shards_give_all_tensors_in_the_asked_order(sharded: Path, tensors: dict) -> None:
    source = open_checkpoint(sharded)
    names = sorted(tensors, reverse=True)
    found = source.read(names)
    assert list(found) == names
    assert all(torch.equal(found[name], tensors[name]) for name in names)


def test_specs_tell_names_shapes_dtypes_and_bytes(sharded: Path, tensors: dict) -> None:
    specs = open_checkpoint(sharded).specs()
    assert {n: (s.shape, s.dtype, s.bytes) for n, s in specs.items()} == {
        n: (tuple(t.shape), "BF16", t.nbytes) for n, t in tensors.items()
    }


def test_reading_one_layer_opens_its_shard_only(sharded: Path) -> None:
    source = open_checkpoint(sharded)
    for shard in ("model-00001-of-00003.safetensors", "model-00003-of-00003.safetensors"):
        (sharded / shard).unlink()
    assert source.read(["model.layers.1.norm.weight"])


def test_what_is_read_stays_when_the_file_is_overwritten(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"x": torch.ones(1000)}, file)
    found = open_checkpoint(tmp_path).read(["x"])["x"]
    with open(file, "r+b") as out:
        out.seek(-4000, 2)
        out.write(bytes(4000))
    assert torch.equal(found, torch.ones(1000))


def test_an_unknown_name_is_refused_with_the_nearest(sharded: Path) -> None:
    with pytest.raises(UserError, match=r"no tensor 'model\.layers\.1\.proj\.wieght'") as error:
        open_checkpoint(sharded).read(["model.layers.1.proj.wieght"])
    assert "model.layers.1.proj.weight" in error.value.remedy


def test_a_file_cut_off_after_its_header_was_read_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    save_file({"x": torch.ones(1000)}, file)
    source = open_checkpoint(tmp_path)
    source.specs()
    with open(file, "r+b") as out:
        out.truncate(file.stat().st_size - 100)
    with pytest.raises(FileChanged, match=r"changed while it was in use: it had \d+ bytes"):
        source.read(["x"])


STREAM = """
import gc, sys, torch
from pathlib import Path
from stages.weights import open_checkpoint

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

source = open_checkpoint(Path(sys.argv[1]))
names = list(source.specs())
source.read(names[:1])
before, most = resident(), 0
for name in names[1:]:
    tensors = source.read([name])
    most = max(most, resident() - before)
    del tensors
print(most)
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_memory_does_not_grow_with_the_checkpoint(tmp_path: Path) -> None:
    one = 32 * 2**20  # far above what pages of libraries come and go meanwhile
    given = {f"t{i:02}": torch.zeros(one // 4) for i in range(12)}
    save_file(given, tmp_path / "model.safetensors")
    done = subprocess.run(
        [sys.executable, "-c", STREAM, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert int(done.stdout) < 3 * one


READERS: list[Callable[[SafetensorsSource], object]] = [
    lambda source: source.read(["x"]),
    lambda source: source.borrow("x", Scratch()),
    lambda source: source.read_block("x", 1),
    lambda source: list(source.pieces("x")),
    lambda source: list(SafetensorsSource(source.layout).specs()),
]


@pytest.mark.parametrize("reader", READERS)
def test_a_file_that_changes_is_read_no_further(
    tmp_path: Path, reader: Callable[[SafetensorsSource], object]
) -> None:
    """Of the same size, with the time that the file before had: `cp -p`, archives, image layers."""
    path, other = tmp_path / "model.safetensors", tmp_path / "other"
    save_file({"x": torch.ones(4, 4)}, path)
    save_file({"x": torch.zeros(4, 4)}, other)
    layout = find_weights(tmp_path)
    pinned = {path.name: PinnedFile(path, state_of(path), sha256_of([path])[path])}
    source = SafetensorsSource(replace(layout, pinned=pinned))
    source.specs()
    reader(source)
    times = path.stat()
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)
    with pytest.raises(FileChanged, match="another file is in its place"):
        reader(source)
