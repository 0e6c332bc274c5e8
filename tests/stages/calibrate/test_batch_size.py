"""A batch size that is left open: chosen from a budget, by all stages alike, part of the key."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pipeline.errors import UserError
from pipeline.store import Store, StoreConfig
from stages.calibrate.batch_size import SHARE, fitting, settled
from stages.calibrate.config import CalibrateConfig
from stages.calibrate.estimate import sequence_bytes
from tests.jobs import Job, built
from tests.pipeline.machine.fake_driver import MODELS, fake_gpus
from tests.stages.calibrate.conftest import Scene
from tests.stages.calibrate.test_estimate import FakeSite

OPEN = CalibrateConfig(batch_size=None)


@pytest.fixture
def site(scene: Callable[..., Scene]) -> Any:
    made = scene("llama")
    return FakeSite({"model": made.blueprint, "tokens": {"samples": 50, "sequence_length": 24}})


def each(site: Any, device: str = "cpu") -> int:
    blueprint = site.facts["model"]
    return max(sequence_bytes(blueprint, layer, 24, device) for layer in blueprint.layers)


@pytest.mark.parametrize(
    ("budget", "chosen"), [(0, 1), (99, 1), (200, 2), (799, 4), (800, 8), (10**9, 50)]
)
def test_it_is_the_largest_power_of_two_that_fits(budget: int, chosen: int) -> None:
    assert fitting(budget, 100, 50) == chosen


def test_without_a_budget_it_is_a_share_of_all_memory_whatever_is_free(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    total = SHARE * 5 * each(site)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(total=total, available=0))
    assert settled(OPEN, "cpu", site).batch_size == 4
    with fake_gpus(*MODELS):
        assert settled(OPEN, "cuda:1", site).batch_size == 50  # its own memory counts


def test_a_budget_is_in_no_key_and_what_it_leads_to_is(site: Any) -> None:
    few = settled(replace(OPEN, batch_memory=3 * each(site)), "cpu", site)
    assert few.batch_size == 2
    assert settled(few, "cpu", site) is few


def test_a_number_stays_and_nothing_is_chosen_before_all_is_known(site: Any) -> None:
    fixed = CalibrateConfig(batch_size=3, batch_memory=1)
    assert settled(fixed, "cpu", site) is fixed
    unknown: Any = FakeSite({"model": site.facts["model"]})
    assert settled(OPEN, "cpu", unknown) is OPEN
    with pytest.raises(UserError, match="the model or the tokens are not known"):
        assert OPEN.sequences


def test_a_budget_below_a_byte_is_refused() -> None:
    with pytest.raises(UserError, match=r"calibrate\.batch_memory is 0"):
        CalibrateConfig(batch_memory=0)


def test_a_job_that_leaves_it_open_is_the_job_that_says_the_number(
    tmp_path: Path, tiny_llama: Path, some_text: Path
) -> None:
    job = Job(folder=tmp_path, model=tiny_llama, text=some_text)
    more = ("kv_cache=fp8", "calibrate.batch_memory=700_000")
    made = job.run("open", *more, "calibrate.batch_size=null")
    assert {"calibrate[0]", "propagate[0]", "cache[0]"} <= built(made)
    store = Store(StoreConfig(dir=str(tmp_path / "store")))
    key = next(node["key"] for node in made["nodes"] if node["name"] == "cache[0]")
    stored = store.get(key)
    assert stored is not None, made["nodes"]
    chosen = stored.record["params"]["config"]["calibrate"]["batch_size"]
    assert chosen in (2, 4)  # of the six samples
    assert not built(job.run("said", *more, f"calibrate.batch_size={chosen}"))
