"""The table of methods, AWQ's two losses and the trained llama: figures by hand, runs when tiny."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.awq_losses import Tried, summary
from tests.benchmarks.methods import Setting, compared, integers, measure


def test_kl_is_compared_window_by_window() -> None:
    above, error = compared({"each": [0.3, 0.5, 0.4]}, {"each": [0.2, 0.4, 0.3]})
    assert above == pytest.approx(0.1) and error == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("scheme", "found"),
    [
        ("w4a16_g64", (4, 64)),
        ("w3a16 scheme.weights.group_size=64", (3, 64)),
        ("w4a16", (4, 128)),
    ],
)
def test_peers_get_the_bits_and_groups_of_the_scheme(scheme: str, found: tuple[int, int]) -> None:
    assert integers(scheme) == found


def test_a_scheme_that_the_peers_are_not_given_is_an_error() -> None:
    with pytest.raises(ValueError, match="nvfp4"):
        integers("nvfp4")


def test_choices_by_two_losses_are_compared() -> None:
    same = Tried(name="0 mlp", ours=[2.0, 1.0, 3.0], paper=[4.0, 2.0, 3.0])
    apart = Tried(name="1 mlp", ours=[2.0, 1.0, 3.0], paper=[4.0, 3.0, 1.0])
    assert summary([same, apart]) == {
        "norms": 2,
        "same choice": 0.5,
        "at most one step apart": 1.0,
        "paper's loss at our choice": pytest.approx((0.5 + 0.75) / 2),
        "paper's loss at its best": pytest.approx((0.5 + 0.25) / 2),
    }


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_llama_is_trained_and_compressed_by_two_methods(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from tests.benchmarks import awq_losses
    from tests.benchmarks.memory import text_of_bytes
    from tests.benchmarks.tokens import halves, windows
    from tests.benchmarks.trained_llama import Shape, write

    text = text_of_bytes(tmp_path / "text.txt", 20_000)
    shape = Shape(layers=2, hidden=64, intermediate=128, heads=2)
    loss = write(tmp_path / "model", [text], shape, minutes=0.05)
    assert loss < 5.7  # nats: less than guessing among 320 tokens
    setting = Setting(
        model=tmp_path / "model",
        text=text,
        work=tmp_path / "work",
        samples=4,
        length=64,
        windows=4,
        peers={},
    )
    rows = measure(setting, ["w4a16_g64", "w3a16 scheme.weights.group_size=64"], ["gptq", "rtn"])
    assert all(len(row["each"]) == 4 for table in rows.values() for row in table.values())
    assert measure(setting, ["w4a16_g64"], ["gptq"]) == rows  # what is there is not run again
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model").float()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    found = awq_losses.measure(model, windows(tokenizer, halves(text)[0], 64, 2), 64, every=1)
    assert len(found) == 4 and all(len(each.paper) == 21 for each in found)
