"""What the benchmark on a GPU must show, and whether it does."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.benchmarks.gpu_peer import DATA_FREE, Comparison


@dataclass(frozen=True, kw_only=True, slots=True)
class Goal:
    """A ratio of ours to the peer's; None where one of the two was not measured."""

    what: str
    ratio: float | None
    most: float

    @property
    def met(self) -> bool:
        return self.ratio is not None and self.ratio <= self.most


WHOLE = {"w4a16": 0.5, "fp8_dynamic": 1.0}
"""Scheme -> the most that the whole process may take of the peer's time."""
LAYER = 1 / 3
DEVICE, HOST = 1.0, 0.5


def goals(found: Comparison) -> Iterator[Goal]:
    """Time a layer, of the whole process, and memory with the most layers."""
    scheme, most = found.scheme, found.layers[1]
    mine, peer = found.spent.get(f"ours {most}"), found.spent.get(f"peer {most}")
    if scheme not in DATA_FREE:
        layers = ratio(found.layer_seconds("ours"), found.layer_seconds("peer"))
        yield Goal(what=f"{scheme}: seconds a layer", ratio=layers, most=LAYER)
    if scheme in WHOLE:
        whole = ratio(mine and mine.seconds, peer and peer.seconds)
        yield Goal(what=f"{scheme}: whole process", ratio=whole, most=WHOLE[scheme])
    device = ratio(mine and mine.device_bytes, peer and peer.device_bytes)
    yield Goal(what=f"{scheme}: device memory", ratio=device, most=DEVICE)
    host = ratio(mine and mine.host_bytes, peer and peer.host_bytes)
    yield Goal(what=f"{scheme}: host memory", ratio=host, most=HOST)


def ratio(mine: float | None, peer: float | None) -> float | None:
    """None as well where noise made one of two differences nothing or less."""
    return mine / peer if mine is not None and peer is not None and min(mine, peer) > 0 else None


def table(found: Sequence[Goal]) -> str:
    lines = []
    for goal in found:
        told = "not measured" if goal.ratio is None else f"{goal.ratio:.2f}"
        limit = f"at most {goal.most:.2f}"
        lines.append(
            f"{'ok' if goal.met else 'NOT':4}{goal.what:32}{told:>13} of the peer's, {limit}"
        )
    return "\n".join(lines)
