"""The families' driver: its list, its eye for faults, and a few families in the default suite."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.families.drive import CASES, PAGE, RESULTS, page_of, read, rows_of
from tests.families.judge import Subject, judge, measured
from tests.families.schemes import SCHEMES

REQUIRED = """
deepseek_v3 deepseek_v32 deepseek_v4 llama4 gemma4 glm4_moe glm_moe_dsa gpt_oss granitemoehybrid
qwen3_moe qwen3_5_moe qwen3_next qwen3_vl_moe afmoe qwen3_omni_moe mixtral cohere2_moe jamba
minimax_m2 nemotron_h olmoe phimoe lfm2_moe ernie4_5_moe
zamba2 opt gemma3n_text falcon bloom gpt2 gpt_neox llava gemma3 mistral3 qwen2_vl qwen2_5_vl
""".split()
"""Families that llm-compressor has code of its own for, and those that were once wrong here."""

QUICK = ("gemma2", "mixtral", "phi3")
MORE = ("qwen3_moe", "qwen2_moe")
GOOD = ("ok", "refused")


def test_the_list_has_ninety_architectures_and_all_that_matter() -> None:
    names = [case.name for case in CASES]
    assert len(names) == len(set(names))
    assert len({case.model_type for case in CASES}) >= 90
    assert set(REQUIRED) <= set(names)


@pytest.fixture(
    scope="module", params=[*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in MORE)]
)
def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Subject:
    case = next(case for case in CASES if case.name == request.param)
    return Subject.write(case, tmp_path_factory.mktemp(case.name))


@pytest.mark.parametrize("scheme", ["fp8_dynamic", "w8a8"])
def test_a_few_families_are_right(subject: Subject, scheme: str) -> None:
    row = judge(subject, SCHEMES[scheme])
    assert (row["verdict"], row["reason"]) == ("ok", "")
    done, total = row["experts"]
    assert done == total


def test_experts_that_are_swapped_are_seen(tmp_path: Path) -> None:
    case = next(case for case in CASES if case.name == "mixtral")
    subject = Subject.write(case, tmp_path)
    scheme = SCHEMES["fp8_dynamic"]
    assert judge(subject, scheme)["verdict"] == "ok"
    checkpoint = tmp_path / scheme.name / "checkpoint"
    for file in checkpoint.glob("*.safetensors"):
        tensors = load_file(file)
        swapped = {_other(name): tensor for name, tensor in tensors.items()}
        file.unlink()  # it is linked to the store's
        save_file(swapped, file, metadata={"format": "pt"})
    row = measured(subject, scheme, checkpoint)
    assert row["verdict"] == "wrong" and "logits error" in row["reason"]


def _other(name: str) -> str:
    """Names with experts 0 and 1 swapped."""
    marks = {".experts.0.": ".experts.1.", ".experts.1.": ".experts.0."}
    for mark, other in marks.items():
        if mark in name:
            return name.replace(mark, other)
    return name


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_every_family_is_right_or_refused() -> None:
    rows = list(rows_of(CASES, SCHEMES.values()))
    bad = [(r["case"], r["scheme"], r["reason"]) for r in rows if r["verdict"] not in GOOD]
    assert not bad
    assert len({row["case"] for row in rows if row["verdict"] == "refused"}) <= 5


def test_the_page_says_what_the_results_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page_of(read(RESULTS))
