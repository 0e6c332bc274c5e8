"""The benchmarks' own drivers on a tiny model: what they promise holds there as well."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.bit_flips import flip_bits
from tests.benchmarks.crash import crash, digests
from tests.benchmarks.disturb import disturb
from tests.benchmarks.five_modifiers import measure
from tests.benchmarks.launch import REPOSITORY, CommandFailed, launch, on_text, result_of
from tests.benchmarks.memory import peak_of, text_of_bytes
from tests.benchmarks.observers import ours, pairs, prepare
from tests.benchmarks.random_llama import TINY, write_model
from tests.benchmarks.reuse import again, sweep
from tests.benchmarks.two_builds import Part, compare
from tests.benchmarks.two_sweeps import two_sweeps

SMALL = ("dataset.num_samples=4", "dataset.sequence_length=64", "scheme.weights.group_size=32")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("model"), TINY)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_of_bytes(tmp_path_factory.mktemp("text") / "text.txt", 50_000)


def test_killed_runs_end_with_the_same_bytes_and_solve_no_layer_twice(
    model: Path, text: Path, tmp_path: Path
) -> None:
    found = crash(model, text, tmp_path, kills=4, more=("eval=none", *SMALL))
    assert found.kills >= 4
    assert found.different == ()
    assert found.twice == ()


def test_the_same_run_again_builds_nothing_and_another_eval_only_the_eval(
    model: Path, text: Path, tmp_path: Path
) -> None:
    small_eval = (f"eval.dataset={{kind:text,path:{text},num_samples:2,sequence_length:64}}",)
    found = again(model, text, tmp_path, (*SMALL, *small_eval))
    assert found["second_built"] == []
    assert set(found["other_eval_built"]) == {"generate", "card"}
    kept = digests(tmp_path / "run" / "checkpoint")
    assert digests(tmp_path / "second" / "checkpoint") == kept


def test_a_sweep_over_group_sizes_calibrates_once(model: Path, text: Path, tmp_path: Path) -> None:
    found = sweep(model, text, tmp_path, (16, 32, 64), SMALL[:2])
    assert found["calibrated_more_than_once"] == []


def test_a_sweep_over_modifiers_calibrates_a_model_once(
    model: Path, text: Path, tmp_path: Path
) -> None:
    found = measure(model, text, tmp_path / "sweep", SMALL)
    assert found["layers_calibrated"] == {"[awq,rtn]": 4}
    assert all(seconds > 0 for seconds in found["parts"].values())


def test_two_sweeps_share_a_store_though_one_is_killed(
    model: Path, text: Path, tmp_path: Path
) -> None:
    found = two_sweeps(model, text, tmp_path / "sweeps", (16, 32), SMALL[:2])
    assert found.different == ()
    assert found.twice == ()
    assert found.whole


def test_two_trees_are_compared_in_turns(model: Path, text: Path, tmp_path: Path) -> None:
    part = Part(name="tiny", words=(*on_text(model, text, tmp_path)[3:8], *SMALL))
    found = compare(part, REPOSITORY, REPOSITORY, tmp_path / "turns", turns=1)
    assert found.same and found.seconds > 0


def test_the_memory_of_a_run_is_measured(model: Path, text: Path, tmp_path: Path) -> None:
    found = peak_of(model, text, tmp_path / "run", samples=2, length=64, more=SMALL[2:])
    assert found["peak_rss_bytes"] > 100_000_000
    assert result_of(tmp_path / "run" / "run")["status"] == "ok"


def test_every_observer_is_timed_as_often_as_asked(tmp_path: Path) -> None:
    presets = ["W4A16", "FP8", "NVFP4A16"]
    prepare(tmp_path / "in.safetensors", 32, 256, presets)
    found = ours(tmp_path / "in.safetensors", 2, 1, presets)
    assert {key: len(seconds) for key, seconds in found.items()} == {
        key: 2 for key, _, _ in pairs(presets)
    }
    assert all(second > 0 for seconds in found.values() for second in seconds)


def test_a_command_that_fails_is_not_measured() -> None:
    with pytest.raises(CommandFailed, match="left with"):
        launch(["false"])


def test_killed_and_stopped_commands_leave_what_undisturbed_ones_do(
    model: Path, text: Path, tmp_path: Path
) -> None:
    found = disturb(model, text, tmp_path, tmp_path / "elsewhere", kills=3, stops=2)
    assert (found.kills.total(), found.stops.total(), found.wrong) == (3, 2, [])


def test_flipped_bits_are_found_and_built_again(model: Path, text: Path, tmp_path: Path) -> None:
    found = flip_bits(model, text, tmp_path, flips=20)
    assert found.flips == found.found == 20 and found.different == ()
