"""Every bit of an artifact counts: one that is flipped is found, wherever it is."""

from __future__ import annotations

import random

from pipeline.store import Store
from tests.benchmarks.bit_flips import flip
from tests.pipeline.store.conftest import Build


def test_every_flipped_bit_is_found(store: Store, build: Build, warnings: list[str]) -> None:
    """In files and manifests of any size, the times of the file kept, as a disk that rots does."""
    draw = random.Random(0)
    for number in range(12):
        files = {"data": draw.randbytes(draw.randrange(1, 300)), "more.json": b'{"a": [1, 2]}\n'}
        artifact = build(f"node {number}", **files)
        path = draw.choice(sorted(artifact.path.iterdir()))
        flip(path, draw.randrange(8 * path.stat().st_size))
        (finding,) = store.verify()
        assert finding.key == artifact.key and finding.repaired
        again = build(f"node {number}", **files)
        assert {name: (again.path / name).read_bytes() for name in files} == files
        store.drop(again.key)
    assert len(warnings) == 12
