"""The benchmark of learned rounding: its figures by hand, and presswork's part on a tiny model."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from tests.benchmarks.divergence import Judged, standard_error
from tests.benchmarks.learned import PEER, Setting, measure, processor_seconds, verdicts


def test_errors_are_those_of_windows() -> None:
    found = Judged(kl=[0.1, 0.2, 0.3, 0.2], loss=[2.0, 2.2, 1.8, 2.0]).summary()
    assert found["kl"] == pytest.approx(0.2) and found["windows"] == 4
    assert found["kl_error"] == pytest.approx(math.sqrt(0.02 / 3) / 2)
    assert found["perplexity"] == pytest.approx(math.exp(2.0))
    assert found["perplexity_error"] == pytest.approx(math.exp(2.0) * math.sqrt(0.08 / 3) / 2)
    assert standard_error([1.0]) == 0


def test_verdicts_compare_with_the_peer_where_it_ran() -> None:
    rows = {
        "rtn": {"kl": 0.4, "processor_seconds": 10.0},
        "autoround": {"kl": 0.1, "processor_seconds": 20.0},
    }
    assert list(verdicts(rows).values()) == [pytest.approx(0.75)]
    rows[PEER] = {"kl": 0.2, "processor_seconds": 200.0}
    assert list(verdicts(rows).values()) == [pytest.approx(v) for v in (0.75, 0.5, 0.1)]


def test_seconds_of_the_processor_are_those_of_the_command() -> None:
    spin = "import time\nwhile time.process_time() < 0.2: pass\n"
    found = processor_seconds([sys.executable, "-c", spin])
    assert 0.2 <= found["processor_seconds"] and found["seconds"] > 0


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_solvers_are_measured_on_a_tiny_model(
    tiny_llama: Path, some_text: Path, tmp_path: Path
) -> None:
    setting = Setting(
        model=tiny_llama,
        text=some_text,
        work=tmp_path / "work",
        samples=6,
        length=64,
        windows=2,
        more=("scheme.weights.group_size=32", "modifier.autoround.iterations=2"),
    )
    found = measure(setting, ("autoround",))
    row = found["rows"]["autoround"]
    assert row["kl"] > 0 and row["windows"] == 2 and row["processor_seconds"] > 0
    assert found["verdicts"] == {}
