"""Candidates: what they are, where they fit, which modules choose together, what is refused."""

from __future__ import annotations

import pytest

from pipeline.errors import UserError
from stages.schemes.candidates import formats_of, units_of
from stages.schemes.quant_args import QArgs
from stages.schemes.scheme import Budget, SchemeConfig, SchemeGroup
from tests.stages.formats.fakes import blueprint

W4 = SchemeConfig(weights=QArgs(num_bits=4, strategy="group", group_size=64))
W8 = SchemeConfig(weights=QArgs(num_bits=8, strategy="channel"))
OPTIONS = {"w4a16_g64": W4, "w8a16": W8}


def auto(*names: str, sizes: list[int] | None = None) -> SchemeConfig:
    return SchemeConfig(candidates=list(names), options=OPTIONS, group_sizes=sizes)


def test_group_sizes_multiply_formats_that_have_groups_and_no_others() -> None:
    found = formats_of(auto("w4a16_g64", "w8a16", sizes=[32, 64]))
    assert list(found) == ["w4a16_g32", "w4a16_g64", "w8a16"]
    assert [g.weights.group_size for g in found.values() if g.weights] == [32, 64, None]


def test_without_group_sizes_a_format_stays_as_it_is_named() -> None:
    assert list(formats_of(auto("w4a16_g64"))) == ["w4a16_g64"]


def test_modules_that_engines_run_as_one_are_one_unit() -> None:
    units = units_of(auto("w4a16_g64"), blueprint(layers=1)).units
    leaves = [[x.name.rpartition(".")[2] for x in unit.linears] for unit in units]
    assert leaves == [
        ["q_proj", "k_proj", "v_proj"],
        ["o_proj"],
        ["gate_proj", "up_proj"],
        ["down_proj"],
    ]


def test_all_experts_of_a_layer_are_one_unit() -> None:
    units = units_of(auto("w4a16_g64"), blueprint(layers=2, experts=4)).units
    experts = [unit for unit in units if "experts" in unit.linears[0].name]
    assert [len(unit.linears) for unit in experts] == [12, 12]


def test_a_format_is_a_candidate_only_where_its_groups_divide_the_width() -> None:
    units = units_of(auto("w4a16_g64", "w8a16"), blueprint(width=96, inner=128)).units
    by_leaf = {unit.linears[-1].name.rpartition(".")[2]: set(unit.candidates) for unit in units}
    assert by_leaf["o_proj"] == {"w8a16"}
    assert by_leaf["down_proj"] == {"w4a16_g64", "w8a16"}


def test_the_range_of_budgets_counts_scales() -> None:
    low, high = units_of(auto("w4a16_g64", "w8a16"), blueprint()).range()
    assert 4.25 <= low < 4.35 and 8.1 < high < 8.4


def test_where_nothing_fits_the_modules_are_named() -> None:
    (problem,) = units_of(auto("w4a16_g64"), blueprint(width=96, inner=128)).problems
    assert "self_attn.q_proj" in problem.what and "down_proj" not in problem.what


def test_a_head_that_is_not_ignored_is_refused() -> None:
    scheme = SchemeConfig(candidates=["w8a16"], options=OPTIONS, ignore=[])
    (problem,) = units_of(scheme, blueprint()).problems
    assert "lm_head" in problem.what


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"candidates": ["w4"]}, "choose one of many, w4a16_g64, w8a16"),
        ({"candidates": []}, "candidates is empty"),
        ({"candidates": ["w8a16"], "weights": QArgs()}, "both given"),
        ({"candidates": ["many"]}, "several formats"),
        ({"candidates": ["w8a16"], "group_sizes": [0]}, "group_sizes has 0"),
    ],
)
def test_what_cannot_be_chosen_among_is_one_clear_error(
    given: dict[str, object], words: str
) -> None:
    groups = {"down": SchemeGroup(weights=W8.weights, targets=["re:.*down_proj"])}
    many = SchemeConfig(weights=W4.weights, groups=groups)
    with pytest.raises(UserError, match=words):
        SchemeConfig(options={**OPTIONS, "many": many}, **given)  # type: ignore[arg-type]


def test_a_candidate_may_quantize_inputs_where_their_groups_fit_too() -> None:
    inputs = QArgs(strategy="group", group_size=128, dynamic=True)
    act = SchemeConfig(weights=W8.weights, input_activations=inputs)
    scheme = SchemeConfig(candidates=["w8a16", "act"], options={**OPTIONS, "act": act})
    assert formats_of(scheme)["act"].input_activations == inputs
    assert [group.input_activations for group in scheme.formats()] == [None, inputs]
    units = units_of(scheme, blueprint(width=192, inner=256)).units
    by_leaf = {unit.linears[-1].name.rpartition(".")[2]: set(unit.candidates) for unit in units}
    assert by_leaf["o_proj"] == {"w8a16"} and by_leaf["down_proj"] == {"w8a16", "act"}


def test_a_budget_is_positive() -> None:
    with pytest.raises(UserError, match="bits_per_weight is 0"):
        Budget(bits_per_weight=0)
